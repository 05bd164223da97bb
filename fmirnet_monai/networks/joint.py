"""A registration and a segmentation network that are trained together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fmirnet_monai.spatial import warp


class JointPrediction(NamedTuple):
    """What both networks give for a batch of pairs.

    Attributes:
        ddf: field ``(B, D, *spatial)`` in voxels.
        moving: class scores (logits) ``(B, classes, *spatial)`` of the moving image.
        warped: the same of the moving image warped onto the fixed one.
        fixed: the same of the fixed image.
    """

    ddf: Tensor
    moving: Tensor
    warped: Tensor
    fixed: Tensor


class JointNetwork(nn.Module):
    """RegNet and SegNet of the FMIRNet paper's joint frameworks (its Fig. 2): any of each.

    RegNet registers the pair; SegNet sees the moving image, the moving image warped by RegNet's field, and the fixed
    image. :py:class:`fmirnet_monai.losses.JointLoss` says what is learnt from which. SegNet alone serves afterwards.

    Args:
        registration: from a pair ``(B, 2 C, *spatial)``, moving image first, to the field; any of
            :py:mod:`fmirnet_monai.networks`.
        segmentation: from an image ``(B, C, *spatial)`` to class scores ``(B, classes, *spatial)``; any of MONAI's.
    """

    def __init__(self, registration: nn.Module, segmentation: nn.Module) -> None:
        super().__init__()
        self.registration = registration
        self.segmentation = segmentation

    def forward(self, pair: Tensor) -> JointPrediction:
        """Field and scores of a batch of pairs ``(B, 2 C, *spatial)``, the moving image first."""
        moving, fixed = pair.chunk(2, dim=1)
        ddf = self.registration(pair)
        scores = self.segmentation(torch.cat([moving, warp(moving, ddf.to(moving)), fixed]))
        return JointPrediction(ddf, *scores.chunk(3))
