"""No deformation: what the others have to beat, and with an affine stage the affine registration alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fmirnet_monai.registration import PairRegistrar
from fmirnet_monai.spatial import DisplacementField, Grid


@dataclass(kw_only=True)
class IdentityRegistrar(PairRegistrar):
    """Moves nothing, beyond what the option ``affine`` of :py:class:`PairRegistrar` does."""

    GRID: ClassVar[dict[str, list[Any]]] = {}
    name: str = "identity"

    def deform(self, pair: Tensor, inside: Tensor, grid: Grid, timings: dict[str, float]) -> DisplacementField:
        """The identity."""
        return DisplacementField.identity(grid)
