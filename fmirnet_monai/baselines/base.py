"""What the classical methods have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fmirnet_monai.registration import PairRegistrar
from fmirnet_monai.registration.result import timed
from fmirnet_monai.spatial import DisplacementField, Grid
from fmirnet_monai.utils import reason

Masks = tuple[Tensor | None, Tensor | None]


@dataclass(kw_only=True)
class ClassicalRegistrar(PairRegistrar):
    """A method of another library, run on the CPU at full resolution; a subclass has :py:meth:`displacement`.

    Both images lie on one grid, so its place and axes say nothing about the map between them. The library gets images
    along ITK's own axes (LPS), with the finest voxel as its mm, and its vectors come back as voxels: a setting means
    the same whatever the geometry, and ITK's symmetric demons, which go astray once an axis is flipped, find their way.

    Attributes:
        GRID: the settings among which tuning looks for the best, each with the values to try.
    """

    GRID: ClassVar[dict[str, list[Any]]] = {}
    smallest: ClassVar[int] = 4  # ITK's recursive filters want as many voxels along each axis

    @abstractmethod
    def displacement(self, moving: Tensor, fixed: Tensor, grid: Grid, masks: Masks) -> Tensor:
        """The pull-back map.

        Args:
            moving: ``(1, *grid.shape)`` floats in [0, 1]; the fixed image where either is masked.
            fixed: the same.
            grid: of both, array axes along L, P and S, none of one voxel, the smallest voxel 1 mm.
            masks: of the moving and the fixed image, ``(1, *grid.shape)`` bool; None where all of it is valid.

        Returns:
            ``(D, *grid.shape)`` in voxels.
        """

    def check(self, grid: Grid) -> None:
        """Raise ValueError when an axis is too short; one of a single voxel is left out of the registration."""
        kept = [n for n in grid.shape if n > 1]
        if len(kept) < 2 or min(kept) < self.smallest:
            raise ValueError(
                f"{self.name} needs two or three axes of at least {self.smallest} voxels, got {grid.shape}."
            )

    def describe(self, grid: Grid) -> dict[str, Any]:
        """All settings of the method itself."""
        common = {item.name for item in fields(PairRegistrar)}
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name not in common}

    def deform(self, pair: Tensor, inside: Tensor, grid: Grid, timings: dict[str, float]) -> DisplacementField:
        """Register on the axes that have more than one voxel.

        Raises:
            ValueError: when the method fails.
        """
        axes = [axis for axis, size in enumerate(grid.shape) if size > 1]
        spacing = (grid.spacing[axes] / grid.spacing[axes].min()).round(9)  # whose last digits change random samples
        lps = np.array([-1.0, -1.0, 1.0][: len(axes)])
        plain = Grid(tuple(grid.shape[axis] for axis in axes), np.diag([*lps * spacing, 1.0]))
        images = pair.detach().float().cpu().reshape(2, *plain.shape)
        valid = inside.cpu().reshape(2, 1, *plain.shape)
        masks = tuple(None if bool(mask.all()) else mask for mask in valid)
        # not every method knows masks, and where one does its image pyramid carries what is masked across the edge
        moving, fixed = torch.where(valid.all(0), images[:1], images[1:]), images[1:]
        ddf = torch.zeros(grid.dims, *grid.shape)
        with timed(timings, "optimisation"):
            try:
                found = self.displacement(moving, fixed, plain, (masks[0], masks[1]))
            except RuntimeError as error:
                raise ValueError(f"{self.name} failed: {reason(error)}.") from error
        ddf[axes] = found.float().reshape(len(axes), *grid.shape)
        return DisplacementField(ddf, grid)


def require(valid: bool, name: str, expected: str, value: object) -> None:
    """Raise ValueError, with the setting's name, what was expected and what was got, unless ``valid``."""
    if not valid:
        raise ValueError(f"{name} must be {expected}, got {value!r}.")


def require_iterations(iterations: tuple[int, ...]) -> None:
    """Raise ValueError unless ``iterations`` has a number for one or more levels."""
    valid = len(iterations) > 0 and all(isinstance(n, int) and n >= 0 for n in iterations) and max(iterations) > 0
    require(valid, "iterations", "one whole number a level, coarse to fine, not all 0", iterations)


def shrink_factors(grid: Grid, levels: int, fewest: int = 16) -> list[list[int]]:
    """Factor by which each level of a pyramid shrinks each axis, the coarsest level first.

    Each level halves the resolution, but an axis of larger voxels waits for the finest one to catch up, and none is
    left with less than ``fewest`` voxels unless it has no more: a stack of ten thick slices stays ten slices.
    """
    limits = [max(1, size // fewest) for size in grid.shape]
    relative = grid.spacing.min() / grid.spacing
    return [
        [int(np.clip(round(2**level * share), 1, limit)) for share, limit in zip(relative, limits, strict=True)]
        for level in range(levels)[::-1]
    ]
