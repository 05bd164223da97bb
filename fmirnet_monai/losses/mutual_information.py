"""Mutual information over the valid voxels."""

from __future__ import annotations

import torch
from monai.losses import GlobalMutualInformationLoss
from monai.utils import LossReduction
from torch import Tensor

from .masked import as_weights


class MutualInformationLoss(GlobalMutualInformationLoss):
    """Minus the mutual information of two images: MONAI's, over the voxels whose weight is above 0.5.

    For the arguments see :py:class:`monai.losses.GlobalMutualInformationLoss`. With a Gaussian kernel intensities
    outside [0, 1] are clamped.
    """

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Minus the information in nats.

        Args:
            prediction: ``(B, C, *spatial)``.
            target: same shape.
            mask: ``(B, 1, *spatial)``, weights in [0, 1] or bool; None for valid everywhere.

        Returns:
            scalar <= 0 (up to rounding), the mean or sum over the items, or ``(B,)`` with ``reduction="none"``; an item
            without valid voxels gives 0.

        Raises:
            ValueError: when the shapes differ.
        """
        if mask is None:
            return super().forward(prediction, target)
        if prediction.shape != target.shape:
            raise ValueError(f"both images must have one shape, got {list(prediction.shape)} and {list(target.shape)}.")
        valid = as_weights(mask, prediction)[:, 0] > 0.5
        items = zip(prediction, target, valid, strict=True)
        values = torch.stack([self._of_item(a[:, inside][None], b[:, inside][None]) for a, b, inside in items])
        if self.reduction == LossReduction.MEAN.value:
            return values.mean()
        return values.sum() if self.reduction == LossReduction.SUM.value else values

    def _of_item(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Of voxels ``(1, C, n)``."""
        if prediction.shape[2] == 0:
            return prediction.sum()  # 0, with a gradient of 0
        return super().forward(prediction, target).squeeze()
