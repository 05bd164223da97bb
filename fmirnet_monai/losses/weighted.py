"""A loss of several named terms."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def full_precision(like: Tensor) -> torch.autocast:
    """A block without mixed precision, which MONAI's trainer computes losses in.

    In half precision a product of two small local variances is 0, and the loss and all its gradients NaN.
    """
    return torch.autocast(like.device.type, enabled=False)


class WeightedLoss(nn.Module):
    """Base of losses that are a weighted sum of named terms.

    Args:
        defaults: weight of each term there is.
        weights: those that differ; a term of weight 0 is not computed.

    Attributes:
        weights: of each term.
        values: the unweighted value of each term of the last call; reading them waits for the device.

    Raises:
        ValueError: when ``weights`` names another term.
    """

    def __init__(self, defaults: Mapping[str, float], weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        if unknown := set(weights or {}) - set(defaults):
            raise ValueError(f"weights names no term: {sorted(unknown)}; the terms are {sorted(defaults)}.")
        self.weights = {name: float(value) for name, value in {**defaults, **(weights or {})}.items()}
        self._values: dict[str, Tensor] = {}

    def extra_repr(self) -> str:
        """The weights, which the terms' own lines don't show."""
        return f"weights={self.weights}"

    @property
    def values(self) -> dict[str, float]:
        """The unweighted value of each term of the last call, which are fetched from the device here and not there."""
        return {name: float(value.mean()) for name, value in self._values.items()}

    def counts(self, name: str) -> bool:
        """Whether a term has to be computed."""
        return self.weights[name] != 0

    def total(self, terms: Mapping[str, Tensor], like: Tensor) -> Tensor:
        """Weighted sum of the terms' values, of ``like``'s type and device; keeps them in ``values``."""
        self._values = {name: value.detach() for name, value in terms.items()}
        return sum((self.weights[name] * value for name, value in terms.items()), like.new_zeros(()))
