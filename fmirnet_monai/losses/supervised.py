"""The loss of a registration network that also learns from labels and known fields, needed in training alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fmirnet_monai.networks.structures import StructurePrediction

from .registration import RegistrationLoss
from .weighted import WeightedLoss

TERMS = {"registration": 1.0, "labels": 0.1, "field": 1.0, "structures": 1.0}


class SupervisedLoss(WeightedLoss):
    """Registration loss, and where pairs have labels or a known field, what the labels lack of covering each other and
    how far off the field and the structures found are.

    Args:
        registration: of the field and the pair; None for none.
        labels: of the field and the label maps of both images, such as :py:class:`LabelOverlapLoss`; None for none.
        weights: of the terms ``labels`` (0.1), ``registration``, ``field`` and ``structures`` (1 each); one of 0 is not
            computed.
        field: of the field and the right one, such as :py:class:`EndpointError`; None for none.
        structures: of scores (logits) ``(2 B, 1 + K, *spatial)`` and label maps ``(2 B, 1, *spatial)``, such as
            :py:class:`StructureLoss`; None for none.

    Raises:
        ValueError: when ``weights`` names another term.
    """

    def __init__(
        self,
        registration: RegistrationLoss | None = None,
        labels: nn.Module | None = None,
        weights: Mapping[str, float] | None = None,
        field: nn.Module | None = None,
        structures: nn.Module | None = None,
    ) -> None:
        super().__init__(TERMS, weights)
        self.registration = registration
        self.labels = labels
        self.field = field
        self.structures = structures

    def forward(
        self, prediction: Tensor | StructurePrediction, target: tuple[Tensor, Tensor | None, Tensor | None]
    ) -> Tensor:
        """Loss of a predicted field.

        Args:
            prediction: ``(B, D, *spatial)`` in voxels, perhaps with scores.
            target: the pair ``(B, 2 C, *spatial)``, the label maps ``(B, 2, *spatial)`` or None, and the right field
                ``(B, D, *spatial)`` or None.

        Returns:
            scalar; the unweighted value of each term of the last call is kept in ``values``.
        """
        ddf, scores = prediction if isinstance(prediction, tuple) else (prediction, None)
        ddf = ddf.float()
        parts = {"registration": self.registration, "labels": self.labels, "field": self.field}
        terms = {
            name: part(ddf, known)
            for (name, part), known in zip(parts.items(), target, strict=True)
            if part is not None and known is not None and self.counts(name)
        }
        labels = target[1]
        if self.structures is not None and scores is not None and labels is not None and self.counts("structures"):
            terms["structures"] = self.structures(scores.float(), torch.cat(labels.chunk(2, dim=1)))
        return self.total(terms, ddf)
