"""The ResUnet that estimates one displacement field from one image pair, with and without its head."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from monai.networks.blocks import ResidualUnit
from monai.networks.layers import Conv
from torch import Tensor, nn

from fmirnet_monai.networks.base import channels_last, channels_last_gradient
from fmirnet_monai.networks.blocks.init import near_zero

LEAKY_RELU = ("leakyrelu", {"negative_slope": 0.2})


class ResUNetPyramid(nn.Module):
    """U-Net of residual units (Zhang et al., "Road extraction by deep residual U-Net", 2018), up to its features.

    Strided residual units go down, linear upsampling and a residual unit on the concatenated skip go up: no
    transposed convolution, whose checkerboard would show in the field. There is no normalisation by default, since
    the field depends on absolute intensity differences.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        channels: channels of each level, from full resolution down; one level fewer than its length halves the size.
        norm: MONAI's name of a normalisation layer, or None.
        stride: of the first unit; with 2 the first level has half the size of the input already.

    Raises:
        ValueError: when ``channels`` has fewer than two levels.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        channels: Sequence[int] = (16, 32, 64),
        norm: str | tuple | None = None,
        stride: int = 1,
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError(f"channels needs at least two levels, got {tuple(channels)}.")

        def unit(inputs: int, outputs: int, stride: int = 1) -> ResidualUnit:
            return ResidualUnit(
                spatial_dims, inputs, outputs, strides=stride, adn_ordering="NA", act=LEAKY_RELU, norm=norm
            )

        self.mode = "bilinear" if spatial_dims == 2 else "trilinear"
        self.stem = unit(in_channels, channels[0], stride)
        self.down = nn.ModuleList(unit(a, b, stride=2) for a, b in pairwise(channels))
        self.up = nn.ModuleList(unit(a + b, a) for a, b in zip(channels[-2::-1], channels[:0:-1], strict=True))

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Features of every level, the coarsest first.

        Args:
            x: ``(B, in_channels, *spatial)``, any size of at least two voxels.

        Returns:
            ``(B, channels[-1], *coarsest)`` to ``(B, channels[0], *spatial)``.
        """
        x = self.stem(channels_last(x))
        skips = [x]
        for down in self.down:
            x = down(x)
            skips.append(x)
        features = [x]
        level = len(skips) - 1
        for up in self.up:
            level -= 1
            x = F.interpolate(x, size=skips[level].shape[2:], mode=self.mode, align_corners=False)
            x = up(torch.cat([channels_last_gradient(x), skips[level]], dim=1))
            features.append(x)
        return features


class ResUNet(ResUNetPyramid):
    """The U-Net of :py:class:`ResUNetPyramid` with a convolution that starts near zero as its head.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output, D for a field.
        channels: channels of each level, from full resolution down.
        norm: MONAI's name of a normalisation layer, or None.
        stride: of the first unit, and so of the output.

    Raises:
        ValueError: when ``channels`` has fewer than two levels.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (16, 32, 64),
        norm: str | tuple | None = None,
        stride: int = 1,
    ) -> None:
        super().__init__(spatial_dims, in_channels, channels, norm, stride)
        self.head = near_zero(Conv[Conv.CONV, spatial_dims](channels[0], out_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels, *spatial)`` to ``(B, out_channels, *spatial)``, any size of at least two voxels."""
        return self.head(self.pyramid(x)[-1])
