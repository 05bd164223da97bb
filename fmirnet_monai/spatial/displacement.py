"""A displacement field together with the grid it lies on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .field import identity_grid, sample
from .grid import Grid
from .inverse import invert
from .jacobian import jacobian_determinant


@dataclass(frozen=True, eq=False)
class DisplacementField:
    """Pull-back map from the fixed image's space to the moving image's: ``x -> x + ddf(x)``.

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

    def world_vectors(self) -> NDArray[np.float64]:
        """Displacement in mm along the RAS+ axes, ``(*grid.shape, D)``."""
        return np.moveaxis(self.ddf.double().cpu().numpy(), 0, -1) @ self.grid.affine[:-1, :-1].T

    @classmethod
    def from_world_vectors(cls, vectors: ArrayLike, grid: Grid) -> DisplacementField:
        """From displacement in mm along the RAS+ axes, ``(*grid.shape, D)``."""
        voxels = np.asarray(vectors, dtype=np.float64) @ np.linalg.inv(grid.affine[:-1, :-1]).T
        return cls(torch.from_numpy(np.moveaxis(voxels, -1, 0).astype(np.float32).copy()), grid)

    def warp(
        self, image: Tensor, image_grid: Grid | None = None, mode: str = "bilinear", padding_mode: str = "border"
    ) -> Tensor:
        """Resample a moving image, once, from its own grid onto this one.

        Args:
            image: ``(C, *image_grid.shape)``.
            image_grid: its grid; by default read from the image (a MetaTensor).
            mode: ``"bilinear"`` or ``"nearest"`` (labels).
            padding_mode: ``"border"``, ``"zeros"`` or ``"reflection"`` outside the image.

        Returns:
            ``(C, *grid.shape)``, a plain tensor in the dtype and on the device of ``image``.
        """
        source = image_grid or Grid.of(image)
        matrix, offset = self.grid.voxel_map(source)
        ddf = self.ddf.double().unsqueeze(0)
        points = torch.einsum("ij,bj...->bi...", matrix.to(ddf), identity_grid(ddf) + ddf)
        points = points + offset.to(ddf).reshape(1, -1, *[1] * self.grid.dims)
        sampled = sample(image.as_subclass(Tensor).to(ddf).unsqueeze(0), points, mode, padding_mode)[0]
        return (sampled if image.is_floating_point() else sampled.round()).to(image.device, image.dtype)

    def map_points(self, points: ArrayLike) -> NDArray[np.float64]:
        """Take points of the fixed image to where they are in the moving one.

        Landmarks of the *moving* image go the other way: map them with the inverse field.

        Args:
            points: ``(N, D)`` in RAS+ mm.

        Returns:
            ``(N, D)`` in RAS+ mm; beyond the grid the nearest border voxel's displacement holds.
        """
        voxels = torch.from_numpy(self.grid.to_voxel(points))
        sites = voxels.T.reshape(1, self.grid.dims, -1, *[1] * (self.grid.dims - 1))
        shift = sample(self.ddf.double().cpu().unsqueeze(0), sites).reshape(self.grid.dims, -1).T
        return self.grid.to_world((voxels + shift).numpy())

    @classmethod
    def identity(cls, grid: Grid) -> DisplacementField:
        """The map that moves nothing."""
        return cls(torch.zeros(grid.dims, *grid.shape), grid)

    def then(self, outer: DisplacementField) -> DisplacementField:
        """Compose on this grid: ``x -> outer(self(x))``; resampling once with it equals ``outer`` first, then this.

        Args:
            outer: from the space this field points into, on any grid.
        """
        start = self.grid.points()
        inner = start + self.world_vectors().reshape(start.shape)
        return self.from_world_vectors((outer.map_points(inner) - start).reshape(*self.grid.shape, -1), self.grid)

    def then_affine(self, matrix: ArrayLike) -> DisplacementField:
        """Compose with an affine map ``(D + 1, D + 1)`` in RAS+ mm, which holds everywhere: ``x -> matrix self(x)``."""
        change = np.asarray(matrix, dtype=np.float64)
        start = self.grid.points()
        inner = start + self.world_vectors().reshape(start.shape)
        vectors = inner @ change[:-1, :-1].T + change[:-1, -1] - start
        return self.from_world_vectors(vectors.reshape(*self.grid.shape, -1), self.grid)

    def resample(self, grid: Grid) -> DisplacementField:
        """The same map on another grid; beyond this one the nearest border voxel's displacement holds."""
        return DisplacementField.identity(grid).then(self)

    def flat_ddf(self) -> Tensor:
        """The field without axes of one voxel, ``(d, *spatial)``: a volume of one slice gives a 2-D field."""
        axes = [i for i, size in enumerate(self.grid.shape) if size > 1]
        return self.ddf[axes].reshape(len(axes), *[self.grid.shape[i] for i in axes])

    def jacobian_determinant(self) -> Tensor:
        """``(*grid.shape)`` by central differences, see :py:func:`fmirnet_monai.spatial.jacobian_determinant`."""
        return jacobian_determinant(self.flat_ddf()[None]).reshape(self.grid.shape)

    def invert(self, iterations: int = 50, tolerance: float = 0.01) -> tuple[DisplacementField, float]:
        """The map back, on the same grid, and how well it went; see :py:func:`fmirnet_monai.spatial.invert`.

        Returns:
            the inverse field and its residual: by how many voxels the worst of them misses.
        """
        axes = [axis for axis, size in enumerate(self.grid.shape) if size > 1]
        inverse, residual = invert(self.flat_ddf().unsqueeze(0), iterations, tolerance)
        whole = torch.zeros_like(self.ddf)
        whole[axes] = inverse[0].to(whole).reshape(len(axes), *self.grid.shape)
        return DisplacementField(whole, self.grid), residual
