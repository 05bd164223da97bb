"""The loss of a registration network with region attention."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fmirnet_monai.networks.region import RegionPrediction, widen
from fmirnet_monai.spatial import warp

from .masked import excess
from .registration import RegistrationLoss
from .weighted import WeightedLoss

TERMS = {"registration": 1.0, "inside": 1.0, "region": 1.0}


class RegionLoss(WeightedLoss):
    """Registration loss, its similarity once more inside an organ, and what the predicted organ misses.

    Args:
        registration: of the field and the pair.
        region: of scores (logits) and mask of the organ, both ``(B, 1, *spatial)``, such as
            ``monai.losses.DiceCELoss(sigmoid=True)``.
        organ: label of the organ, None for all labels together.
        margin: voxels by which "inside" reaches beyond the organ; contrast at its edge is what aligns it.
        weights: of the terms ``registration``, ``inside`` and ``region`` (1 each).

    Raises:
        ValueError: when ``weights`` names another term.
    """

    def __init__(
        self,
        registration: RegistrationLoss,
        region: nn.Module,
        organ: int | None = None,
        margin: int = 2,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(TERMS, weights)
        self.registration = registration
        self.region = region
        self.organ = organ
        self.margin = margin

    def extra_repr(self) -> str:
        """What the modules' own lines don't show."""
        return f"organ={self.organ}, margin={self.margin}, weights={self.weights}"

    def forward(self, prediction: RegionPrediction, target: tuple[Tensor, Tensor]) -> Tensor:
        """Loss of field and predicted organ.

        Args:
            prediction: see :py:class:`RegionPrediction`.
            target: the pair ``(B, 2 C, *spatial)`` and the fixed image's label ``(B, 1, *spatial)`` in integers.

        Returns:
            scalar; the unweighted value of each term of the last call is kept in ``values``.
        """
        pair, label = target
        moving, fixed = pair.float().chunk(2, dim=1)
        ddf = prediction.ddf.float()
        organ = (label > 0 if self.organ is None else label == self.organ).float()
        inside = widen(organ, self.margin)
        terms = {
            "registration": self.registration(ddf, pair),
            # per voxel of the region, so that a small organ counts as much as a large one; and not by the mask that
            # the terms know themselves, since windows that end at the organ's edge would not see what aligns it
            "inside": excess(self.registration.dissimilarity, warp(moving, ddf), fixed, inside, least=1e-3)[0],
            "region": self.region(prediction.scores.float(), organ),
        }
        return self.total(terms, ddf)
