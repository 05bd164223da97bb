"""The registration loss: a weighted sum of named terms on the warped image and on the field."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fmirnet_monai.spatial import warp

from .masked import compare
from .weighted import WeightedLoss, full_precision


class RegistrationLoss(WeightedLoss):
    """Weighted sum of similarity terms ``loss(warped, fixed)`` and regularisation terms ``loss(ddf)``.

    The FMIRNet paper's loss for CT is ``mse + 0.1 * ssim + 1e-7 * smoothness`` with ``SmoothnessLoss("sum")``.

    Args:
        similarity: named losses of two images, for example MSE, :py:class:`SSIMLoss`, or any of MONAI's.
        regularization: named losses of a field.
        weights: weight of each named term; a term not named here has weight 1, one of weight 0 is not computed.

    Raises:
        ValueError: when a name stands in both groups, or in ``weights`` alone.
    """

    def __init__(
        self,
        similarity: Mapping[str, nn.Module],
        regularization: Mapping[str, nn.Module] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        names = [*similarity, *(regularization or {})]
        if len(set(names)) < len(names):
            raise ValueError(f"a term's name must be unique, got {list(similarity)} and {list(regularization or {})}.")
        super().__init__(dict.fromkeys(names, 1.0), weights)
        self.similarity = nn.ModuleDict(similarity)
        self.regularization = nn.ModuleDict(regularization)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Loss of a predicted field.

        Args:
            prediction: field ``(B, D, *spatial)`` in voxels.
            target: the network's own input ``(B, 2 C, *spatial)``: moving image first, then fixed.

        Returns:
            scalar; the unweighted value of each term of the last call is kept in ``values``.
        """
        ddf = prediction.float()
        moving, fixed = target.float().chunk(2, dim=1)
        with full_precision(ddf):
            terms = self._similarities(warp(moving, ddf), fixed) if self.similarity else {}
            terms |= {name: term(ddf) for name, term in self.regularization.items() if self.counts(name)}
            return self.total(terms, ddf)

    def dissimilarity(self, warped: Tensor, fixed: Tensor, mask: Tensor | None = None, each: bool = False) -> Tensor:
        """The similarity terms alone: what an optimizer of the field minimises.

        Args:
            warped: ``(B, C, *spatial)``.
            fixed: same shape.
            mask: weights ``(B, 1, *spatial)`` in [0, 1] or bool of where both images are valid, a constant; None for
                everywhere. How a term takes it is told at :py:func:`fmirnet_monai.losses.compare`.
            each: the loss of each item.

        Returns:
            scalar, or ``(B)``; 0 for an empty mask.

        Raises:
            ValueError: when the mask has another shape.
        """
        with full_precision(warped):
            return self.total(self._similarities(warped.float(), fixed.float(), mask, each), fixed)

    def _similarities(
        self, warped: Tensor, fixed: Tensor, mask: Tensor | None = None, each: bool = False
    ) -> dict[str, Tensor]:
        terms = {name: term for name, term in self.similarity.items() if self.counts(name)}
        return {name: compare(term, warped, fixed, mask, each) for name, term in terms.items()}
