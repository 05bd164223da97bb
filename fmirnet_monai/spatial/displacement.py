"""A displacement field together with the grid it lies on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .field import identity_grid, sample, warp
from .grid import Grid


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
            ``(C, *grid.shape)``.
        """
        source = image_grid or Grid.of(image)
        matrix, offset = self.grid.voxel_map(source)
        ddf = self.ddf.double().unsqueeze(0)
        points = torch.einsum("ij,bj...->bi...", matrix.to(ddf), identity_grid(ddf) + ddf)
        points = points + offset.to(ddf).reshape(1, -1, *[1] * self.grid.dims)
        sampled = sample(torch.as_tensor(image).double().unsqueeze(0), points, mode, padding_mode)[0]
        return sampled.to(image.dtype) if image.is_floating_point() else sampled.round().to(image.dtype)

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

    def invert(self, iterations: int = 50, tolerance: float = 0.01) -> tuple[DisplacementField, float]:
        """Invert by fixed-point iteration ``v <- -ddf(x + v)`` (Chen et al., Medical Physics 2008).

        Args:
            iterations: at most.
            tolerance: stop when no voxel's residual is larger, in voxels.

        Returns:
            the inverse field and its residual: the largest ``|v(x) + ddf(x + v(x))|`` in voxels, over points that
            stay inside the grid. A small one says that each voxel found a preimage, not that it is the only one:
            whether the field folds is for :py:func:`digital_jacobian_determinants` to say.
        """
        ddf = self.ddf.double().unsqueeze(0)
        grid = identity_grid(ddf)
        limit = torch.tensor(self.grid.shape, dtype=torch.double, device=ddf.device) - 1
        limit = limit.reshape(1, -1, *[1] * self.grid.dims)
        inverse, residual = -ddf, torch.inf
        for iteration in range(iterations):
            error = inverse + warp(ddf, inverse)
            inside = ((grid + inverse >= 0) & (grid + inverse <= limit)).all(1, keepdim=True)
            residual = float((error * inside).norm(dim=1).max())
            if residual <= tolerance or iteration == iterations - 1:
                break
            inverse = inverse - error
        return DisplacementField(inverse[0].to(self.ddf.dtype), self.grid), residual
