"""The registration loss: a weighted sum of named terms on the warped image and on the field."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fmirnet_monai.spatial import warp


class RegistrationLoss(nn.Module):
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
        super().__init__()
        regularization = regularization or {}
        weights = weights or {}
        names = {*similarity, *regularization}
        if len(names) < len(similarity) + len(regularization):
            raise ValueError(f"a term's name must be unique, got {list(similarity)} and {list(regularization)}.")
        if unknown := set(weights) - names:
            raise ValueError(f"weights names no term: {sorted(unknown)}; the terms are {sorted(names)}.")
        self.similarity = nn.ModuleDict(similarity)
        self.regularization = nn.ModuleDict(regularization)
        self.weights = {name: float(weights.get(name, 1.0)) for name in [*similarity, *regularization]}
        self.values: dict[str, float] = {}

    def extra_repr(self) -> str:
        """The weights, which the terms' own lines don't show."""
        return f"weights={self.weights}"

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
        terms = self._similarities(warp(moving, ddf), fixed) if self.similarity else {}
        terms |= {name: term(ddf) for name, term in self.regularization.items() if self.weights[name] != 0}
        return self._sum(terms, ddf)

    def dissimilarity(self, warped: Tensor, fixed: Tensor) -> Tensor:
        """The similarity terms alone, of two images ``(B, C, *spatial)``: what an optimizer of the field minimises."""
        return self._sum(self._similarities(warped, fixed), fixed)

    def _similarities(self, warped: Tensor, fixed: Tensor) -> dict[str, Tensor]:
        return {name: term(warped, fixed) for name, term in self.similarity.items() if self.weights[name] != 0}

    def _sum(self, terms: dict[str, Tensor], like: Tensor) -> Tensor:
        self.values = {name: float(value.detach()) for name, value in terms.items()}
        return sum((self.weights[name] * value for name, value in terms.items()), like.new_zeros(()))
