"""A registration and a segmentation network that are trained together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fmirnet_monai.spatial import warp


class JointPrediction(NamedTuple):
    """What both networks give for a batch of pairs.

    Attributes:
        ddf: fields ``(R, D, *spatial)`` in voxels of the first R pairs, which were registered.
        moving: class scores (logits) ``(B, classes, *spatial)`` of the moving images.
        warped: the same of the first R moving images warped onto the fixed ones.
        fixed: the same of the first R fixed images.
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
        registered: of a batch's pairs so many are registered, by default all; of the others only the moving image is
            learnt from, which costs little.

    Raises:
        ValueError: when ``registered`` is not at least 1.
    """

    def __init__(self, registration: nn.Module, segmentation: nn.Module, registered: int | None = None) -> None:
        super().__init__()
        if registered is not None and registered < 1:
            raise ValueError(f"registered must be at least 1 pair, got {registered}.")
        self.registered = registered
        self.registration = registration
        self.segmentation = segmentation

    def forward(self, pair: Tensor) -> JointPrediction:
        """Field and scores of a batch of pairs ``(B, 2 C, *spatial)``, the moving image first."""
        moving, fixed = pair.chunk(2, dim=1)
        ddf = self.registration(pair[: self.registered])
        count = len(ddf)
        images = [moving, warp(moving[:count], ddf.to(moving)), fixed[:count]]
        scores = self.segmentation(torch.cat(images))
        return JointPrediction(ddf, *scores.split([len(image) for image in images]))
