"""Losses of label maps, for training alone: how far those of both images overlap, and how well structures are found."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor, nn

from fmirnet_monai.spatial import warp


class LabelOverlapLoss(nn.Module):
    """What soft Dice lacks of 1, mean over some labels that both images of a pair show.

    The labels are drawn anew at each call, so that many structures cost no more than a few. Masks are blurred over
    three voxels, which lets their edges pull. Of pairs without a common label the loss is 0. After VoxelMorph's
    auxiliary labels (Balakrishnan et al., IEEE TMI 2019).

    Args:
        count: labels of a pair that are compared, at most.
        num_labels: labels from this number on are left out; 0 is the background.
        smallest: voxels that a label must have on both sides.
    """

    def __init__(self, count: int = 4, num_labels: int = 32, smallest: int = 12) -> None:
        super().__init__()
        self.count = count
        self.num_labels = num_labels
        self.smallest = smallest
        self.dice = DiceLoss(squared_pred=True, smooth_nr=0.0, smooth_dr=1e-3, reduction="none")

    def forward(self, ddf: Tensor, labels: Tensor) -> Tensor:
        """Loss of a field.

        Args:
            ddf: ``(B, D, *spatial)`` in voxels.
            labels: maps in whole numbers ``(B, 2, *spatial)``, the moving image's first.

        Returns:
            scalar in [0, 1].
        """
        moving, fixed = labels.split(1, dim=1)
        common = (self._sizes(moving) > self.smallest) & (self._sizes(fixed) > self.smallest)
        common[:, 0] = False
        order = torch.rand(common.shape, device=ddf.device) * common
        drawn = order.topk(min(self.count, self.num_labels), dim=1).indices
        counts = common.gather(1, drawn)
        numbers = drawn.view(*drawn.shape, *[1] * (labels.dim() - 2))
        pool = F.avg_pool2d if labels.dim() == 4 else F.avg_pool3d
        masks = [pool((side == numbers).to(ddf.dtype), 3, stride=1, padding=1) for side in (moving, fixed)]
        missing = self.dice(warp(masks[0], ddf), masks[1]).flatten(1)
        return (missing * counts).sum() / counts.sum().clamp(min=1)

    def _sizes(self, labels: Tensor) -> Tensor:
        """Voxels of each label, ``(B, num_labels)``; those left out count as background."""
        flat = labels.flatten(1).long()
        flat = flat * (flat < self.num_labels)
        sizes = torch.zeros(len(flat), self.num_labels, device=labels.device)
        return sizes.scatter_add_(1, flat, torch.ones_like(flat, dtype=sizes.dtype))


class StructureLoss(nn.Module):
    """Cross entropy, and what soft Dice lacks of 1, mean over the structures that some map of the batch shows.

    Of many structures an image shows a few: those of a set of images, and of a window. Dice of the others is lost in
    any case, and a mean over all would leave those that are there too little weight to be found at all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dice = DiceLoss(softmax=True, batch=True, smooth_nr=0.0, reduction="none")
        self.cross_entropy = nn.CrossEntropyLoss()

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Loss of what a segmentation network finds.

        Args:
            scores: logits ``(B, 1 + K, *spatial)``, the background first.
            labels: maps in whole numbers, ``(B, 1, *spatial)``; labels beyond K count as background.

        Returns:
            scalar.
        """
        numbers = labels[:, 0].long()
        numbers = numbers * (numbers < scores.shape[1])
        truth = F.one_hot(numbers, scores.shape[1]).movedim(-1, 1).to(scores)
        shown = truth.sum((0, *range(2, truth.dim()))) > 0
        shown[0] = False
        missing = (self.dice(scores, truth).flatten() * shown).sum() / shown.sum().clamp(min=1)
        return missing + self.cross_entropy(scores, numbers)
