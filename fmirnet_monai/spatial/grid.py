"""A voxel grid that knows where it lies in space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


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
        if abs(np.linalg.det(self.affine)) < 1e-12:
            raise ValueError(f"affine must be invertible, got\n{self.affine}")

    @classmethod
    def of(cls, image: Tensor) -> Grid:
        """Grid of a channel-first image ``(C, *spatial)``; a plain tensor has voxels of 1 mm at the origin."""
        dims = image.dim() - 1
        affine = np.eye(dims + 1)
        if isinstance(image, MetaTensor):
            full = np.asarray(image.affine, dtype=np.float64)
            affine[:dims, :dims], affine[:dims, dims] = full[:dims, :dims], full[:dims, -1]
        return cls(tuple(image.shape[1:]), affine)

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.shape)

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Voxel size in mm along each array axis."""
        return np.linalg.norm(self.affine[:-1, :-1], axis=0)

    def to_world(self, points: ArrayLike) -> NDArray[np.float64]:
        """Voxel positions ``(N, D)`` to RAS+ mm."""
        return np.asarray(points) @ self.affine[:-1, :-1].T + self.affine[:-1, -1]

    def to_voxel(self, points: ArrayLike) -> NDArray[np.float64]:
        """RAS+ positions in mm ``(N, D)`` to voxels."""
        return (np.asarray(points) - self.affine[:-1, -1]) @ np.linalg.inv(self.affine[:-1, :-1]).T

    def points(self) -> NDArray[np.float64]:
        """RAS+ position in mm of every voxel, ``(N, D)`` in array order."""
        return self.to_world(np.indices(self.shape).reshape(self.dims, -1).T)

    def with_longest_side(self, size: int) -> Grid:
        """Grid of the same extent with voxels of about equal sides, ``size`` of them along the longest axis.

        Axes of one voxel stay. :py:func:`fmirnet_monai.registration.optimise.resize` brings an image onto it.
        """
        extent = np.array(self.shape) * self.spacing
        voxel = extent[np.array(self.shape) > 1].max() / size
        shape = tuple(1 if n == 1 else max(2, round(e / voxel)) for n, e in zip(self.shape, extent, strict=True))
        factors = np.array(self.shape) / shape
        affine = self.affine.copy()
        affine[:-1, :-1] *= factors
        affine[:-1, -1] = self.to_world([(factors - 1) / 2])[0]
        return Grid(shape, affine)

    def matches(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """Same size and, to ``tolerance`` mm at every corner, same place."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(self.dims, -1).T
        return bool(np.abs(self.to_world(corners) - other.to_world(corners)).max() <= tolerance)

    def overlaps(self, other: Grid) -> bool:
        """Whether any voxel's centre of either grid lies in the other, to half a voxel."""
        return self._contains_any(other) or other._contains_any(self)

    def contains(self, points: ArrayLike) -> NDArray[np.bool_]:
        """Which of the RAS+ positions ``(N, D)`` lie in the image, half a voxel beyond its outermost centres."""
        voxels = self.to_voxel(points)
        inside: NDArray[np.bool_] = (voxels >= -0.5 - 1e-6) & (voxels <= np.array(self.shape) - 0.5 + 1e-6)
        return np.all(inside, axis=1)

    def _contains_any(self, other: Grid) -> bool:
        sparse = np.stack(
            np.meshgrid(*[np.unique(np.linspace(0, n - 1, 33).round()) for n in other.shape], indexing="ij"), axis=-1
        )
        return bool(self.contains(other.to_world(sparse.reshape(-1, self.dims))).any())

    def voxel_map(self, other: Grid) -> tuple[Tensor, Tensor]:
        """Matrix ``(D, D)`` and offset ``(D,)`` that take voxels of this grid to voxels of another, in double."""
        matrix = np.linalg.inv(other.affine) @ self.affine
        return torch.from_numpy(matrix[:-1, :-1].copy()), torch.from_numpy(matrix[:-1, -1].copy())
