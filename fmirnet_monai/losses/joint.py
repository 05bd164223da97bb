"""The loss of joint registration and segmentation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmirnet_monai.networks.joint import JointPrediction
from fmirnet_monai.spatial import warp

from .registration import RegistrationLoss
from .weighted import WeightedLoss

TERMS = {"registration": 1.0, "moving": 1.0, "warped": 1.0, "fixed": 0.0}
WINDOW = 9  # pixels a side


class JointLoss(WeightedLoss):
    """Registration loss plus segmentation losses; only the moving image's label is needed.

    The FMIRNet paper's form learns the segmentation from the moving image and its label and from both warped by the
    field. Beyond it, the fixed image itself can be learnt from with the warped label, ``weights={"fixed": 1}``: unlike
    the warped image it is a slice that nobody labelled, and unlike there the label may be off it where the
    registration is. With ``tolerance`` the label counts there as far as the warped and the fixed image agree around
    each pixel; for the rest the network's answer is taken to be right, and does not change.

    Args:
        registration: of the field and the pair.
        segmentation: of scores (logits) and class probabilities, both ``(B, classes, *spatial)``, such as
            ``monai.losses.DiceCELoss(softmax=True)``.
        num_classes: the background among them.
        weights: of the terms ``registration``, ``moving``, ``warped`` (1 each) and ``fixed`` (0).
        tolerance: difference of intensities, root mean square over a window, at which the warped label counts
            ``exp(-1/2)`` for the fixed image; None lets it count everywhere.

    Raises:
        ValueError: when ``weights`` names another term, or ``tolerance`` is not above 0.
    """

    def __init__(
        self,
        registration: RegistrationLoss,
        segmentation: nn.Module,
        num_classes: int = 2,
        weights: Mapping[str, float] | None = None,
        tolerance: float | None = None,
    ) -> None:
        super().__init__(TERMS, weights)
        if tolerance is not None and tolerance <= 0:
            raise ValueError(f"tolerance must be above 0, got {tolerance}.")
        self.registration = registration
        self.segmentation = segmentation
        self.num_classes = num_classes
        self.tolerance = tolerance

    def extra_repr(self) -> str:
        """What the modules' own lines don't show."""
        return f"weights={self.weights}, tolerance={self.tolerance}"

    def forward(self, prediction: JointPrediction, target: tuple[Tensor, Tensor]) -> Tensor:
        """Loss of what both networks gave.

        Args:
            prediction: see :py:class:`JointPrediction`.
            target: the pairs ``(B, 2 C, *spatial)`` and the moving images' labels ``(B, 1, *spatial)`` in integers.

        Returns:
            scalar; the unweighted value of each term of the last call is kept in ``values``.
        """
        ddf = prediction.ddf.float()
        pair, label = target[0][: len(ddf)], target[1]
        classes = F.one_hot(label[:, 0].long(), self.num_classes).movedim(-1, 1).float()
        warped = warp(classes[: len(ddf)], ddf)
        terms = {"registration": self.registration(ddf, pair)} if self.counts("registration") else {}
        learnt = {
            "moving": (prediction.moving.float(), classes),
            "warped": (prediction.warped.float(), warped),
            "fixed": (prediction.fixed.float(), warped),
        }
        if self.tolerance is not None and self.counts("fixed"):
            moving, fixed = pair.float().chunk(2, dim=1)
            trust = agreement(warp(moving, ddf.detach()), fixed, self.tolerance)
            learnt["fixed"] = (_as_far_as(trust, *learnt["fixed"]), warped)
        for name, (scores, truth) in learnt.items():
            if self.counts(name):
                terms[name] = self.segmentation(scores, truth)
        return self.total(terms, ddf)


def agreement(warped: Tensor, fixed: Tensor, tolerance: float) -> Tensor:
    """How well two images ``(B, C, *spatial)`` match around each pixel, ``(B, 1, *spatial)`` in (0, 1].

    ``exp(-d / (2 tolerance²))`` of the mean square difference ``d`` over a window of 9 pixels a side.
    """
    squares = (warped - fixed).square().mean(1, keepdim=True)
    pool = F.avg_pool2d if squares.dim() == 4 else F.avg_pool3d
    mean = pool(squares, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)
    return (-mean / (2 * tolerance**2)).exp()


def _as_far_as(trust: Tensor, scores: Tensor, truth: Tensor) -> Tensor:
    """Scores (logits) that give the truth where the trust is 0, so that nothing is learnt there, and their own at 1.

    Args:
        trust: ``(B, 1, *spatial)`` in [0, 1].
        scores: logits ``(B, classes, *spatial)`` of classes that exclude each other.
        truth: class probabilities, in the scores' shape.
    """
    return torch.lerp(truth.detach(), scores.softmax(1), trust).clamp_min(1e-6).log()
