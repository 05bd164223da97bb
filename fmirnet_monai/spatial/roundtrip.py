"""A map's inverse on a grid, measured by going there and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .displacement import DisplacementField
from .grid import Grid, precise
from .maps import Map


@dataclass(frozen=True, eq=False)
class Inversion:
    """The inverse of a map, as a field on a grid.

    Attributes:
        field: the map back.
        inside: where there is a point that the map takes to this one, ``(*grid.shape)``; elsewhere the field goes on.
        residual: by how many voxels of the grid, at most, there and back misses, where the way leads through the map's
            domain; NaN where it nowhere does.
    """

    field: DisplacementField
    inside: Tensor
    residual: float

    @property
    def missing(self) -> int:
        """Voxels without an inverse."""
        return int((~self.inside).sum())


def invert(found: Map, grid: Grid, device: torch.device | None = None) -> Inversion:
    """The inverse of a map on a grid of the space that it leads to.

    Args:
        found: to invert.
        grid: of the result, usually the moving image's.
        device: of the computation.
    """
    device = device or torch.device("cpu")
    there, back = found.to(device), found.inverse().to(device)
    like = precise(device)
    ddf = torch.empty(grid.dims, *grid.shape, device=device)
    inside = torch.empty(grid.shape, dtype=torch.bool, device=device)
    worst = torch.full((), torch.nan).to(like)
    for slab in grid.slabs():
        goal = grid.indices(slab, like)
        source, inside[slab] = back.at(grid, slab, like)
        ddf[:, slab] = (grid.to_voxel(source) - goal).movedim(-1, 0).float()
        returned, known = there(source)
        misses = (grid.to_voxel(returned) - goal).norm(dim=-1)[known]
        if misses.numel():
            worst = torch.fmax(worst, misses.max())
    return Inversion(DisplacementField(ddf, grid), inside, float(worst))
