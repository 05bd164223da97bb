"""Dual-PRNet: fields from the feature pyramids of both images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers import Conv
from torch import Tensor, nn

from fmirnet_monai.networks.base import PairNetwork
from fmirnet_monai.networks.blocks import ResUNetPyramid, local_correlation, near_zero
from fmirnet_monai.spatial import compose, upsample_field, warp

SLOPE = 0.2


class DualPRNet(PairNetwork):
    """Dual-stream pyramid registration network.

    One encoder and decoder computes a feature pyramid of each image. From the coarsest level up, the moving features
    are warped by the field so far, and a registration module estimates an increment from them and the fixed features;
    the fields are composed (Hu et al., MICCAI 2019; Kang et al., Medical Image Analysis 2022). The streams are those
    of the project's ResUnet. The papers' module is a convolution; here there are two, since one alone is linear in
    the two images' features and cannot compare them.

    Args:
        spatial_dims: D, 2 or 3.
        in_channels: C, channels of one image.
        channels: channels of the pyramid's levels, from full resolution down.
        correlation: give the modules the local correlation of the features too, radius 1, see
            :py:func:`local_correlation`: Dual-PRNet++ of the second paper.

    Raises:
        ValueError: when ``channels`` has fewer than two levels.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        channels: Sequence[int] = (16, 32, 48, 64),
        correlation: bool = True,
    ) -> None:
        super().__init__(spatial_dims, in_channels, 2 ** (len(channels) - 1))
        self.correlation = correlation
        self.streams = ResUNetPyramid(spatial_dims, in_channels, channels)
        conv = Conv[Conv.CONV, spatial_dims]
        maps = 3**spatial_dims if correlation else 0
        self.registration = nn.ModuleList(
            nn.Sequential(
                conv(2 * width + maps, width, 3, padding=1),
                nn.LeakyReLU(SLOPE),
                near_zero(conv(width, spatial_dims, 3, padding=1)),
            )
            for width in reversed(channels)
        )

    def estimate(self, pair: Tensor) -> Tensor:
        """See :py:meth:`PairNetwork.estimate`."""
        # both images in one batch
        pyramid = self.streams.pyramid(torch.cat([pair[:, : self.in_channels], pair[:, self.in_channels :]]))
        field = self.identity(pyramid[0][: pair.shape[0]])
        for i, module in enumerate(self.registration):
            moving, fixed = pyramid[i].chunk(2)
            if i > 0:
                field = upsample_field(field)
                moving = warp(moving, field)
            features = [moving, fixed]
            if self.correlation:
                features.append(local_correlation(fixed, moving))
            field = compose(field, module(torch.cat(features, dim=1)))
        return field
