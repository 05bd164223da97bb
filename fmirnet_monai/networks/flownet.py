"""FlowNet-S: the optical flow network that registration networks descend from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from monai.networks.layers import Conv
from torch import Tensor, nn

from fmirnet_monai.networks.base import PairNetwork
from fmirnet_monai.networks.blocks import near_zero
from fmirnet_monai.networks.vtn import FlowRefinement
from fmirnet_monai.spatial import upsample_field

SLOPE = 0.1
KERNELS = (7, 5, 5)  # of the first convolutions; 3 after them


class FlowNetS(PairNetwork):
    """Both images stacked, strided convolutions down, deconvolutions and flow predictions up to a quarter of the size.

    Dosovitskiy et al., "FlowNet: learning optical flow with convolutional networks", ICCV 2015, which was taught with
    known flows (``RandKnownFieldBatch``, ``EndpointError``). Theirs has 64 to 1024 channels; its loss also
    sees the flows that are predicted on the way up, here only the last one leaves the network.

    Args:
        spatial_dims: D, 2 or 3.
        in_channels: C, channels of one image.
        channels: of each level, from half resolution down, three at least.

    Raises:
        ValueError: when there are fewer levels.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        channels: Sequence[int] = (16, 32, 64, 128, 128, 256),
    ) -> None:
        if len(channels) < 3:
            raise ValueError(f"channels needs at least three levels, got {tuple(channels)}.")
        super().__init__(spatial_dims, in_channels, 2 ** len(channels))
        conv = Conv[Conv.CONV, spatial_dims]
        self.down = nn.ModuleList()
        for level, (inputs, outputs) in enumerate(pairwise([2 * in_channels, *channels])):
            kernel = KERNELS[level] if level < len(KERNELS) else 3
            layers = [conv(inputs, outputs, kernel, stride=2, padding=kernel // 2), nn.LeakyReLU(SLOPE)]
            if level >= 2:
                layers += [conv(outputs, outputs, 3, padding=1), nn.LeakyReLU(SLOPE)]
            self.down.append(nn.Sequential(*layers))
        self.up = nn.ModuleList()
        width = channels[-1]
        for skip in channels[-2:0:-1]:
            self.up.append(FlowRefinement(spatial_dims, width, skip))
            width = 2 * skip + spatial_dims
        self.head = near_zero(conv(width, spatial_dims, 3, padding=1))

    def estimate(self, pair: Tensor) -> Tensor:
        """See :py:meth:`PairNetwork.estimate`."""
        x = pair
        skips: list[Tensor] = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        level = len(skips) - 1
        for up in self.up:
            level -= 1
            x = up(x, skips[level])
        return upsample_field(upsample_field(self.head(x)))
