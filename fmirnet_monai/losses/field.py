"""The loss of a field whose right answer is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EndpointError(nn.Module):
    """Mean distance in voxels between where two fields point to, FlowNet's loss (Dosovitskiy et al., ICCV 2015)."""

    def forward(self, ddf: Tensor, target: Tensor) -> Tensor:
        """Loss of a field.

        Args:
            ddf: ``(B, D, *spatial)`` in voxels.
            target: the same; a voxel where it is NaN does not count.

        Returns:
            scalar, 0 where no voxel counts.
        """
        known = target.isfinite().all(1)
        error = torch.where(known[:, None], ddf - target, 0.0).square().sum(1)
        # the root's slope has no limit at 0
        return ((error + 1e-6).sqrt() * known).sum() / known.sum().clamp(min=1)
