"""The loss of joint registration and segmentation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmirnet_monai.networks.joint import JointPrediction
from fmirnet_monai.spatial import warp

from .registration import RegistrationLoss

TERMS = {"registration": 1.0, "moving": 1.0, "warped": 1.0, "fixed": 0.0}


class JointLoss(nn.Module):
    """Registration loss plus segmentation losses; only the moving image's label is needed.

    The FMIRNet paper's form learns the segmentation from the moving image and its label and from both warped by the
    field. Beyond it, the fixed image itself can be learnt from with the warped label, ``weights={"fixed": 1}``: unlike
    the warped image it is a slice that nobody labelled, and unlike there the label may be off it where the
    registration is.

    Args:
        registration: of the field and the pair.
        segmentation: of scores (logits) and class probabilities, both ``(B, classes, *spatial)``, such as
            ``monai.losses.DiceCELoss(softmax=True)``.
        num_classes: the background among them.
        weights: of the terms ``registration``, ``moving``, ``warped`` (1 each) and ``fixed`` (0).

    Raises:
        ValueError: when ``weights`` names another term.
    """

    def __init__(
        self,
        registration: RegistrationLoss,
        segmentation: nn.Module,
        num_classes: int = 2,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if unknown := set(weights or {}) - set(TERMS):
            raise ValueError(f"weights names no term: {sorted(unknown)}; the terms are {sorted(TERMS)}.")
        self.registration = registration
        self.segmentation = segmentation
        self.num_classes = num_classes
        self.weights = {**TERMS, **(weights or {})}
        self.values: dict[str, float] = {}

    def extra_repr(self) -> str:
        """What the modules' own lines don't show."""
        return f"weights={self.weights}"

    def forward(self, prediction: JointPrediction, target: tuple[Tensor, Tensor]) -> Tensor:
        """Loss of what both networks gave.

        Args:
            prediction: see :py:class:`JointPrediction`.
            target: the pair ``(B, 2 C, *spatial)`` and the moving image's label ``(B, 1, *spatial)`` in integers.

        Returns:
            scalar; the unweighted value of each term of the last call is kept in ``values``.
        """
        pair, label = target
        ddf = prediction.ddf.float()
        classes = F.one_hot(label[:, 0].long(), self.num_classes).movedim(-1, 1).float()
        warped = warp(classes, ddf)
        terms = {"registration": self.registration(ddf, pair)} if self.weights["registration"] != 0 else {}
        for name, truth in (("moving", classes), ("warped", warped), ("fixed", warped)):
            if self.weights[name] != 0:
                terms[name] = self.segmentation(getattr(prediction, name).float(), truth)
        self.values = {name: float(value.detach()) for name, value in terms.items()}
        return torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
