"""A displacement field together with the grid it lies on, and its inverse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .field import sample_at
from .grid import Grid, precise
from .inverse import FieldInverse
from .jacobian import digital_jacobian_determinants, jacobian_determinant
from .maps import Map, Mapped


@dataclass(frozen=True, eq=False)
class DisplacementField(Map):
    """``x -> x + ddf(x)``, linear between voxels; beyond the grid, half a voxel from its outermost centres, it is not
    known and moves nothing, as in ITK.

    Attributes:
        ddf: ``(D, *grid.shape)`` in voxels of ``grid``, channel i along array axis i.
        grid: the fixed image's grid.
    """

    ddf: Tensor
    grid: Grid

    def __post_init__(self) -> None:
        expected = (self.grid.dims, *self.grid.shape)
        if tuple(self.ddf.shape) != expected:
            raise ValueError(f"ddf must have shape {expected} on its grid, got {tuple(self.ddf.shape)}.")
        object.__setattr__(self, "ddf", self.ddf.as_subclass(Tensor))  # the grid says where it lies, no MetaTensor

    @property
    def dims(self) -> int:
        return self.grid.dims

    def __call__(self, points: Tensor) -> Mapped:
        voxels = self.grid.to_voxel(points)
        inside = self.grid.holds(voxels)
        shift = sample_at(self.ddf, voxels).movedim(0, -1).to(points) * inside.unsqueeze(-1)
        return points + shift @ torch.from_numpy(self.grid.affine[:-1, :-1].T.copy()).to(points), inside

    def at(self, grid: Grid, slab: slice = slice(None), like: Tensor | None = None) -> Mapped:
        """See :py:class:`Map`; on the field's own grid nothing is interpolated."""
        if not self.grid.matches(grid):
            return super().at(grid, slab, like)
        voxels = grid.indices(slab, like)
        moved = grid.to_world(voxels + self.ddf[:, slab].movedim(0, -1).to(voxels))
        return moved, torch.ones(moved.shape[:-1], dtype=torch.bool, device=moved.device)

    def inverse(self) -> Inverse:
        """See :py:class:`Inverse`."""
        return Inverse(self)

    def to(self, device: torch.device) -> DisplacementField:
        return self if self.device == device else DisplacementField(self.ddf.to(device), self.grid)

    @classmethod
    def of(cls, found: Map, grid: Grid) -> tuple[DisplacementField, Tensor]:
        """A map as a field on a grid, and where it is known, ``(*grid.shape)``; a field on its own grid is itself."""
        if isinstance(found, cls) and found.grid.matches(grid):
            return found, torch.ones(grid.shape, dtype=torch.bool, device=found.device)
        found, like = found.to(found.device), precise(found.device)  # a chain's parts may lie elsewhere
        ddf = torch.empty(grid.dims, *grid.shape, device=like.device)
        inside = torch.empty(grid.shape, dtype=torch.bool, device=like.device)
        for slab in grid.slabs():
            points, inside[slab] = found.at(grid, slab, like)
            ddf[:, slab] = (grid.to_voxel(points) - grid.indices(slab, like)).movedim(-1, 0).float()
        return cls(ddf, grid), inside

    @classmethod
    def identity(cls, grid: Grid) -> DisplacementField:
        """The map that moves nothing."""
        return cls(torch.zeros(grid.dims, *grid.shape), grid)

    def world_vectors(self, slab: slice = slice(None)) -> NDArray[np.floating]:
        """Displacement in mm along the RAS+ axes, ``(*grid.shape, D)``, or that of a slab along the first axis."""
        return self._world(slab).movedim(0, -1).cpu().numpy()

    def _world(self, slab: slice) -> Tensor:
        """Displacement in mm of a slab, ``(D, ...)``, in double precision where the device has it."""
        part = self.ddf[:, slab].to(precise(self.ddf.device))
        return torch.tensordot(torch.from_numpy(self.grid.affine[:-1, :-1].copy()).to(part), part, 1)

    @classmethod
    def from_world_vectors(cls, vectors: ArrayLike, grid: Grid) -> DisplacementField:
        """From displacement in mm along the RAS+ axes, ``(*grid.shape, D)``."""
        values = np.asarray(vectors)
        ddf = torch.empty(grid.dims, *grid.shape)
        back = np.linalg.inv(grid.affine[:-1, :-1]).T
        for slab in grid.slabs():
            with np.errstate(invalid="ignore"):  # of vectors that are not finite, which readers refuse
                ddf[:, slab] = torch.from_numpy(values[slab] @ back).movedim(-1, 0).float()
        return cls(ddf, grid)

    def length(self) -> Tensor:
        """Length of the displacement in mm, ``(*grid.shape)``."""
        return torch.cat([self._world(slab).norm(dim=0).float() for slab in self.grid.slabs()])

    def flat_ddf(self) -> Tensor:
        """The field without axes of one voxel, ``(d, *spatial)``: a volume of one slice gives a 2-D field."""
        axes = [i for i, size in enumerate(self.grid.shape) if size > 1]
        return self.ddf[axes].reshape(len(axes), *[self.grid.shape[i] for i in axes])

    def jacobian_determinant(self) -> Tensor:
        """``(*grid.shape)`` by central differences, see :py:func:`fmirnet_monai.spatial.jacobian_determinant`."""
        ddf = self.flat_ddf()[None]
        size = ddf.shape[2]
        rows = []
        for slab in Grid(ddf.shape[2:], np.eye(ddf.dim() - 1)).slabs():
            begin, end = max(0, slab.start - 1), min(size, slab.stop + 1)  # central differences see one row beyond
            part = jacobian_determinant(ddf[:, :, begin:end])
            rows.append(part[0, slab.start - begin : part.shape[1] - (end - slab.stop)])
        return torch.cat(rows).reshape(self.grid.shape)

    def digital_folding(self) -> float:
        """Grid cells of which a simplex folds, in percent, see :py:func:`digital_jacobian_determinants`."""
        ddf = self.flat_ddf()[None]
        folded = 0
        for slab in Grid(ddf.shape[2:], np.eye(ddf.dim() - 1)).slabs():
            part = ddf[:, :, slab.start : slab.stop + 1]
            if part.shape[2] > 1:
                folded += int((digital_jacobian_determinants(part) <= 0).any(dim=1).sum())
        return 100.0 * folded / math.prod(n - 1 for n in ddf.shape[2:])

    @property
    def device(self) -> torch.device:
        return self.ddf.device


@dataclass(frozen=True, eq=False)
class Inverse(Map):
    """The inverse of a displacement field, solved for each point that is asked for.

    Valid where a point of the field's grid is mapped to the asked one. Elsewhere the field is thought to go on with its
    border values, which is right for what a field leads off its grid as a whole.

    Attributes:
        field: the map to invert.
    """

    field: DisplacementField

    @cached_property
    def _solver(self) -> FieldInverse:
        return FieldInverse(self.field.ddf)

    @property
    def dims(self) -> int:
        return self.field.dims

    def __call__(self, points: Tensor) -> Mapped:
        grid = self.field.grid
        goal = grid.to_voxel(points)
        source, found = self._solver(goal.reshape(-1, self.dims))
        source, found = source.reshape(goal.shape), found.reshape(goal.shape[:-1])
        return grid.to_world(source), found & grid.holds(source)

    def inverse(self) -> DisplacementField:
        """The field itself."""
        return self.field

    def to(self, device: torch.device) -> Inverse:
        return self if self.device == device else Inverse(self.field.to(device))

    @property
    def device(self) -> torch.device:
        return self.field.device
