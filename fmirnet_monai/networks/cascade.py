"""Networks one after another, each on what the ones before it have left unregistered."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fmirnet_monai.networks.base import PairNetwork
from fmirnet_monai.spatial import compose, warp


class Cascade(PairNetwork):
    """Each stage sees the moving image warped by the field so far; the fields are composed.

    The moving image itself is resampled for each stage, by the composed field, so that no interpolation blurs
    another's result.

    Args:
        spatial_dims: D, 2 or 3.
        in_channels: C, channels of one image.
        divisor: sizes that the stages take are multiples of it.
        stages: networks ``(B, 2 C, *spatial)`` to ``(B, D, *spatial)``, in voxels.

    Raises:
        ValueError: when there is no stage.
    """

    def __init__(self, spatial_dims: int, in_channels: int, divisor: int, stages: Iterable[nn.Module]) -> None:
        super().__init__(spatial_dims, in_channels, divisor)
        self.stages = nn.ModuleList(stages)
        if len(self.stages) == 0:
            raise ValueError("stages must be at least 1, got 0.")

    def estimate(self, pair: Tensor) -> Tensor:
        """See :py:meth:`PairNetwork.estimate`."""
        moving, fixed = pair[:, : self.in_channels], pair[:, self.in_channels :]
        field = self.identity(pair)
        for i, stage in enumerate(self.stages):
            warped = moving if i == 0 else warp(moving, field)
            field = compose(field, stage(torch.cat([warped, fixed], dim=1)))
        return field
