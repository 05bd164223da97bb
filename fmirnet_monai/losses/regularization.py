"""Penalties on the displacement field itself."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from fmirnet_monai.spatial import digital_jacobian_determinants


class SmoothnessLoss(_Loss):
    """Squared spatial gradient of a field, ``S(ddf)`` of the FMIRNet paper.

    Forward differences, since the central ones of :py:class:`monai.losses.DiffusionLoss` do not see a field that
    alternates from voxel to voxel and leave out the border.

    Args:
        reduction: ``"sum"`` sums over the field and averages over the batch (the paper's form, where alpha = 1e-7);
            ``"mean"`` averages over elements and axes.

    Raises:
        ValueError: for another ``reduction``.
    """

    def __init__(self, reduction: str = "sum") -> None:
        super().__init__(reduction=reduction)
        if reduction not in ("sum", "mean"):
            raise ValueError(f'reduction must be "sum" or "mean", got "{reduction}".')

    def forward(self, ddf: Tensor) -> Tensor:
        """``(B, D, *spatial)`` in voxels to a scalar >= 0."""
        squares = [ddf.diff(dim=axis).square() for axis in range(2, ddf.dim())]
        if self.reduction == "mean":
            return sum((s.mean() for s in squares), ddf.new_zeros(())) / len(squares)
        return sum((s.sum() for s in squares), ddf.new_zeros(())) / ddf.shape[0]


class FoldingLoss(_Loss):
    """Digital folding penalty: mean of ``max(0, margin - det J)`` over all simplices of the grid.

    Zero exactly when no simplex of either tessellation is smaller than ``margin`` times its undeformed volume; see
    :py:func:`fmirnet_monai.spatial.digital_jacobian_determinants`.

    Args:
        margin: the determinant below which a simplex is penalised, in [0, 1).
    """

    def __init__(self, margin: float = 0.1) -> None:
        super().__init__()
        if not 0 <= margin < 1:
            raise ValueError(f"margin must be in [0, 1), got {margin}.")
        self.margin = margin

    def forward(self, ddf: Tensor) -> Tensor:
        """``(B, D, *spatial)`` in voxels to a scalar >= 0."""
        determinants = digital_jacobian_determinants(ddf)
        # the two middle tetrahedra of a 3-D cell are twice as large as the corner ones
        volumes = torch.cat([determinants[:, :8], determinants[:, 8:] / 2], dim=1)
        return (self.margin - volumes).clamp(min=0).mean()
