"""A voxel grid that knows where it lies in space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

SLAB = 2**18  # voxels that are worked on at a time
RIM = 1e-6  # voxels by which rounding may put a position outside
P = TypeVar("P", Tensor, NDArray[Any])


@dataclass(frozen=True, eq=False)
class Grid:
    """Size and place of an image: the only thing that turns voxel indices into mm and back.

    Attributes:
        shape: voxels along each array axis, D = 2 or 3 of them.
        affine: ``(D + 1, D + 1)`` matrix from voxel index (ij order) to RAS+ mm, as in NIfTI and MONAI.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", np.asarray(self.affine, dtype=np.float64))
        if len(self.shape) not in (2, 3):
            raise ValueError(f"shape must have 2 or 3 axes, got {self.shape}.")
        size = len(self.shape) + 1
        if self.affine.shape != (size, size):
            raise ValueError(
                f"affine must be a {size} x {size} matrix for shape {self.shape}, got {self.affine.shape}."
            )
        with np.errstate(all="ignore"):  # of what is refused then
            sound = self._is_sound()
        if not sound:
            raise ValueError(f"affine must be finite and invertible, got {self.affine.tolist()}")

    def _is_sound(self) -> bool:
        spacing = self.spacing  # of directions, not of mm: a microscope's voxels are small but sound
        if not (np.isfinite(self.affine).all() and np.isfinite(spacing).all() and (spacing > 0).all()):
            return False
        return bool(abs(np.linalg.det(self.affine[:-1, :-1] / spacing)) >= 1e-6)

    @classmethod
    def of(cls, image: Tensor) -> Grid:
        """Grid of a channel-first image ``(C, *spatial)``; a tensor without ``affine`` has voxels of 1 mm at 0."""
        dims = image.dim() - 1
        affine = np.eye(dims + 1)
        if hasattr(image, "affine"):  # MONAI's MetaTensor
            full = np.asarray(image.affine, dtype=np.float64)
            affine[:dims, :dims], affine[:dims, dims] = full[:dims, :dims], full[:dims, -1]
        return cls(tuple(image.shape[1:]), affine)

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.shape)

    @cached_property
    def spacing(self) -> NDArray[np.float64]:
        """Voxel size in mm along each array axis."""
        return np.linalg.norm(self.affine[:-1, :-1], axis=0)

    def to_world(self, points: P) -> P:
        """Voxel positions ``(..., D)`` to RAS+ mm."""
        return transform(self.affine, points)

    def to_voxel(self, points: P) -> P:
        """RAS+ positions in mm ``(..., D)`` to voxels."""
        return transform(np.linalg.inv(self.affine), points)

    def points(self) -> NDArray[np.float64]:
        """RAS+ position in mm of every voxel, ``(N, D)`` in array order."""
        return self.to_world(np.indices(self.shape).reshape(self.dims, -1).T)

    def slabs(self) -> Iterator[slice]:
        """The grid in pieces along its first axis, of about a quarter of a million voxels each."""
        rows = max(1, SLAB // int(np.prod(self.shape[1:])))
        for begin in range(0, self.shape[0], rows):
            yield slice(begin, min(begin + rows, self.shape[0]))

    def indices(self, slab: slice = slice(None), like: Tensor | None = None) -> Tensor:
        """Index of every voxel, or of a slab's, ``(..., D)``, in double precision unless ``like`` says otherwise."""
        like = precise(torch.device("cpu")) if like is None else like
        axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in self.shape]
        return torch.stack(torch.meshgrid(axes[0][slab], *axes[1:], indexing="ij"), dim=-1)

    def with_longest_side(self, size: int) -> Grid:
        """Grid of the same extent with voxels of about equal sides, ``size`` of them along the longest axis.

        Axes of one voxel stay. :py:func:`fmirnet_monai.spatial.resize` brings an image onto it.
        """
        extent = np.array(self.shape) * self.spacing
        voxel = extent[np.array(self.shape) > 1].max() / size
        return self.resized(
            [1 if n == 1 else max(2, round(e / voxel)) for n, e in zip(self.shape, extent, strict=True)]
        )

    def resized(self, shape: ArrayLike) -> Grid:
        """Grid of another number of voxels over the same extent."""
        size = tuple(int(n) for n in np.asarray(shape))
        factors = np.array(self.shape) / size
        affine = self.affine.copy()
        affine[:-1, :-1] *= factors
        affine[:-1, -1] = self.to_world((factors - 1) / 2)
        return Grid(size, affine)

    def matches(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """Same size and, to ``tolerance`` voxels at every corner, same place."""
        return self.shape == other.shape and (
            np.array_equal(self.affine, other.affine) or self.distance(other) <= tolerance
        )

    def distance(self, other: Grid) -> float:
        """By how many voxels of this grid a corner of one lies from the same corner of the other, at most."""
        corners = self._corners()
        return float(np.abs(self.to_voxel(other.to_world(corners)) - corners).max())

    def difference(self, other: Grid) -> str:
        """What keeps this grid from matching another, in words: its size, or how far away it lies."""
        if self.shape != other.shape:
            return f"it has {self.shape} voxels, not {other.shape}"
        gap = np.linalg.norm(self.to_world(self._corners()) - other.to_world(self._corners()), axis=1).max()
        moved = np.allclose(self.affine[:-1, :-1], other.affine[:-1, :-1], rtol=0, atol=1e-4 * self.spacing.min())
        what = "its origin lies" if moved else "its spacing or direction differs, a corner lies"
        return f"{what} {gap:.3g} mm ({self.distance(other):.3g} voxels) away"

    def overlaps(self, other: Grid) -> bool:
        """Whether any voxel's centre of either grid lies in the other, to half a voxel."""
        return self.matches(other) or self._contains_any(other) or other._contains_any(self)

    def contains(self, points: P) -> P:
        """Which of the RAS+ positions ``(..., D)`` lie in the image, half a voxel beyond its outermost centres.

        An axis of one voxel so is a slab as thick as its spacing. ITK's interpolators have the same rule.
        """
        return self.holds(self.to_voxel(points))

    def holds(self, voxels: P) -> P:
        """The same of voxel positions ``(..., D)``."""
        if isinstance(voxels, Tensor):
            limit = torch.tensor(self.shape).to(voxels) - 0.5
            return ((voxels >= -0.5 - RIM) & (voxels <= limit + RIM)).all(-1)
        return np.all((voxels >= -0.5 - RIM) & (voxels <= np.array(self.shape) - 0.5 + RIM), axis=-1)

    def _corners(self) -> NDArray[np.int64]:
        """Voxels ``(2 ** D, D)`` at the corners."""
        return np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(self.dims, -1).T

    def _contains_any(self, other: Grid) -> bool:
        sparse = np.stack(
            np.meshgrid(*[np.unique(np.linspace(0, n - 1, 33).round()) for n in other.shape], indexing="ij"), axis=-1
        )
        return bool(self.contains(other.to_world(sparse.reshape(-1, self.dims))).any())


def precise(device: torch.device) -> Tensor:
    """A number of the best floating type of a device: double precision, which Apple's GPUs have not."""
    return torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)


def transform(matrix: NDArray[Any], points: P) -> P:
    """Positions ``(..., D)`` through an affine ``(D + 1, D + 1)``; a tensor keeps its type and device."""
    if isinstance(points, Tensor):
        whole = torch.from_numpy(matrix).to(points)
        return points @ whole[:-1, :-1].T + whole[:-1, -1]
    return points @ matrix[:-1, :-1].T + matrix[:-1, -1]
