"""The loss of a registration network that also learns from labels and known fields, needed in training alone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .registration import RegistrationLoss
from .weighted import WeightedLoss

TERMS = {"registration": 1.0, "labels": 0.1, "field": 1.0}


class SupervisedLoss(WeightedLoss):
    """Registration loss, and where pairs have labels or a known field, what the labels lack of covering each other and
    how far off the field is.

    Args:
        registration: of the field and the pair; None for none.
        labels: of the field and the label maps of both images, such as :py:class:`LabelOverlapLoss`; None for none.
        weights: of the terms ``registration`` (1), ``labels`` (0.1) and ``field`` (1); one of 0 is not computed.
        field: of the field and the right one, such as :py:class:`EndpointError`; None for none.

    Raises:
        ValueError: when ``weights`` names another term.
    """

    def __init__(
        self,
        registration: RegistrationLoss | None = None,
        labels: nn.Module | None = None,
        weights: Mapping[str, float] | None = None,
        field: nn.Module | None = None,
    ) -> None:
        super().__init__(TERMS, weights)
        self.registration = registration
        self.labels = labels
        self.field = field

    def forward(self, prediction: Tensor, target: tuple[Tensor, Tensor | None, Tensor | None]) -> Tensor:
        """Loss of a predicted field.

        Args:
            prediction: ``(B, D, *spatial)`` in voxels.
            target: the pair ``(B, 2 C, *spatial)``, the label maps ``(B, 2, *spatial)`` or None, and the right field
                ``(B, D, *spatial)`` or None.

        Returns:
            scalar; the unweighted value of each term of the last call is kept in ``values``.
        """
        ddf = prediction.float()
        parts = {"registration": self.registration, "labels": self.labels, "field": self.field}
        terms = {
            name: part(ddf, known)
            for (name, part), known in zip(parts.items(), target, strict=True)
            if part is not None and known is not None and self.counts(name)
        }
        return self.total(terms, ddf)
