"""Volume Tweening Network and its recursive cascades."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.layers import Conv
from torch import Tensor, nn

from fmirnet_monai.networks.blocks import near_zero
from fmirnet_monai.networks.cascade import Cascade

SLOPE = 0.1


class RecursiveCascade(Cascade):
    """Cascade of VTN's subnetworks, trained end to end with the similarity of the last warped image alone.

    Zhao et al., "Unsupervised 3D end-to-end medical image registration with Volume Tweening Network", JBHI 2019, and
    "Recursive cascaded networks for unsupervised medical image registration", ICCV 2019. Their first, affine
    subnetwork is left out: the project has an affine stage before any network. Their penalty on each stage's field
    becomes one on the composed field, the only one that leaves the network.

    Args:
        spatial_dims: D, 2 or 3.
        in_channels: C, channels of one image.
        channels: channels of the levels of each subnetwork, from half resolution down (the papers: 16 to 512 at 1/64).
        stages: number of subnetworks (the papers: up to 10), with weights of their own.

    Raises:
        ValueError: when ``channels`` is empty or ``stages`` is below 1.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        channels: Sequence[int] = (8, 16, 32, 64),
        stages: int = 3,
    ) -> None:
        if len(channels) == 0:
            raise ValueError("channels needs at least one level, got ().")
        networks = (VTNSubnetwork(spatial_dims, 2 * in_channels, channels) for _ in range(stages))
        super().__init__(spatial_dims, in_channels, 2 ** len(channels), networks)


class FlowPyramid(nn.Module):
    """FlowNet's encoder and decoder: strided convolutions down, deconvolutions and flow predictions up.

    Args:
        spatial_dims: D, 2 or 3.
        in_channels: channels of the input.
        channels: channels of each level, from half resolution down; a second convolution stands from the third on.
        kernels: sizes of the first levels' convolutions; 3 after them.
        finest: level that the decoder ends at, 0 is half the resolution.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        channels: Sequence[int],
        kernels: Sequence[int] = (),
        finest: int = 0,
    ) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.down = nn.ModuleList()
        for level, (inputs, outputs) in enumerate(pairwise([in_channels, *channels])):
            kernel = kernels[level] if level < len(kernels) else 3
            layers = [conv(inputs, outputs, kernel, stride=2, padding=kernel // 2), nn.LeakyReLU(SLOPE)]
            if level >= 2:
                layers += [conv(outputs, outputs, 3, padding=1), nn.LeakyReLU(SLOPE)]
            self.down.append(nn.Sequential(*layers))
        self.up = nn.ModuleList()
        self.out_channels = channels[-1]
        for skip in reversed(channels[finest:-1]):
            self.up.append(FlowRefinement(spatial_dims, self.out_channels, skip))
            self.out_channels = 2 * skip + spatial_dims

    def features(self, x: Tensor) -> Tensor:
        """Finest level of ``(B, in_channels, *spatial)``, whose sizes 2 to the number of levels divides."""
        skips: list[Tensor] = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        level = len(skips) - 1
        for up in self.up:
            level -= 1
            x = up(x, skips[level])
        return x


class VTNSubnetwork(FlowPyramid):
    """VTN's subnetwork: the pyramid up to half the resolution, and a deconvolution as its head.

    Args:
        spatial_dims: D, 2 or 3.
        in_channels: channels of the input.
        channels: of each level, see :py:class:`FlowPyramid`.
    """

    def __init__(self, spatial_dims: int, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__(spatial_dims, in_channels, channels)
        deconv = Conv[Conv.CONVTRANS, spatial_dims]
        self.head = near_zero(deconv(self.out_channels, spatial_dims, 4, stride=2, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels, *spatial)`` to ``(B, D, *spatial)``; sizes divisible by 2 to the number of levels."""
        return self.head(self.features(x))


class FlowRefinement(nn.Module):
    """One level up: the encoder's features beside those from below and the flow predicted there."""

    def __init__(self, spatial_dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        conv, deconv = Conv[Conv.CONV, spatial_dims], Conv[Conv.CONVTRANS, spatial_dims]
        self.features = nn.Sequential(deconv(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE))
        self.flow = conv(inputs, spatial_dims, 3, padding=1)
        self.flow_up = deconv(spatial_dims, spatial_dims, 4, stride=2, padding=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([skip, self.features(x), self.flow_up(self.flow(x))], dim=1)
