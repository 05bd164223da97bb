"""Forms of FMIRNet that were tried and did not stay; see ``bundles/fmirnet_universal/docs/trials.md``."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.blocks import ResidualUnit
from torch import Tensor, nn

from fmirnet_monai.networks.blocks import ResUNetPyramid, near_zero
from fmirnet_monai.networks.blocks.resunet import LEAKY_RELU
from fmirnet_monai.networks.fmirnet import FMIRNet
from fmirnet_monai.spatial import compose, warp


class SumAndDifference(nn.Module):
    """One encoder for each image, heads on the sum and the difference of the features."""

    def __init__(self, spatial_dims: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        width = channels[0]
        self.encoder = ResUNetPyramid(spatial_dims, 1, channels)
        self.mix = ResidualUnit(spatial_dims, 2 * width, width, adn_ordering="NA", act=LEAKY_RELU, norm=None)
        self.head = near_zero(nn.Conv2d(width, spatial_dims, 3, padding=1))

    def forward(self, pair: Tensor) -> Tensor:
        a, b = (self.encoder.pyramid(image)[-1] for image in pair.split(1, dim=1))
        return self.head(self.mix(torch.cat([a + b, a - b], dim=1)))


class TrialFMIRNet(FMIRNet):
    """FMIRNet in 2-D with one of ``"sum"``, ``"antisymmetric"``, ``"two passes"``."""

    def __init__(self, form: str, channels: tuple[int, ...] = (16, 32, 64), **options: Any) -> None:
        super().__init__(channels=channels, **options)
        self.form = form
        if form == "sum":
            self.estimators = nn.ModuleList([SumAndDifference(2, tuple(channels))])

    def estimate(self, pair: Tensor) -> Tensor:
        field = super().estimate(pair)
        if self.form == "two passes":
            moving, fixed = pair.split(1, dim=1)
            field = compose(field, super().estimate(torch.cat([warp(moving, field), fixed], dim=1)))
        return field

    def _estimate(self, scale: int, pair: Tensor) -> Tensor:
        field = super()._estimate(scale, pair)
        return 0.5 * (field - super()._estimate(scale, pair.flip(1))) if self.form == "antisymmetric" else field
