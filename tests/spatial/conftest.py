"""Grids, fields and images of any geometry, and the same for SimpleITK."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from fmirnet_monai.spatial import Affine, Chain, DisplacementField, Grid, Map

FLIP = {2: np.diag([-1.0, -1.0]), 3: np.diag([-1.0, -1.0, 1.0])}


def random_grid(rng: np.random.Generator, dims: int, shape: tuple[int, ...] | None = None) -> Grid:
    """Turned, flipped and anisotropic, somewhere."""
    shape = shape or tuple(int(n) for n in rng.integers(12, 24, dims))
    turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    angle = rng.uniform(0, 2 * np.pi)
    axes = turn if dims == 3 else np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    affine = np.eye(dims + 1)
    affine[:-1, :-1] = axes * rng.uniform(0.6, 3.0, dims) * rng.choice([-1.0, 1.0], dims)
    affine[:-1, -1] = rng.uniform(-40, 40, dims)
    return Grid(tuple(shape), affine)


def random_affine(rng: np.random.Generator, dims: int, about: Grid) -> Affine:
    """Small turn, stretch and shear about a grid's middle, and a shift."""
    middle = about.to_world((np.array(about.shape) - 1) / 2)
    matrix = np.eye(dims + 1)
    matrix[:-1, :-1] += rng.uniform(-0.15, 0.15, (dims, dims))
    matrix[:-1, -1] = middle - matrix[:-1, :-1] @ middle + rng.uniform(-3, 3, dims)
    return Affine(matrix)


def random_field(rng: np.random.Generator, grid: Grid, size: float = 1.5) -> DisplacementField:
    """Smooth, at most ``size`` voxels along each axis; none along axes of one voxel."""
    values = np.stack([gaussian_filter(rng.normal(0, 1, grid.shape), 2.5) for _ in grid.shape])
    values *= (np.array(grid.shape) > 1).reshape(-1, *[1] * grid.dims)
    return DisplacementField(torch.from_numpy(values / max(np.abs(values).max(), 1e-9) * size).float(), grid)


def random_map(rng: np.random.Generator, near: Grid) -> Map:
    """An affine map, or a field on a grid of about the same place."""
    if rng.random() < 0.5:
        return random_affine(rng, near.dims, near)
    affine = near.affine.copy()
    affine[:-1, -1] += rng.uniform(-2, 2, near.dims) * near.spacing
    return random_field(rng, Grid(near.shape, affine))


def smooth_image(rng: np.random.Generator, grid: Grid) -> torch.Tensor:
    return torch.from_numpy(gaussian_filter(rng.normal(0, 1, grid.shape), 2.0) * 20)[None]


def to_sitk(array: np.ndarray, where: Grid, vectors: bool = False) -> sitk.Image:
    order = tuple(range(where.dims))[::-1]
    image = sitk.GetImageFromArray(
        np.ascontiguousarray(array.transpose(*order, where.dims) if vectors else array.T), isVector=vectors
    )
    lps = FLIP[where.dims] @ where.affine[:-1]
    image.SetSpacing(where.spacing.tolist())
    image.SetOrigin(lps[:, -1].tolist())
    image.SetDirection((lps[:, :-1] / where.spacing).ravel().tolist())
    return image


def transform_of(found: Map) -> sitk.Transform:
    """The same map in SimpleITK, made from numbers and not through files."""
    flip = FLIP[found.dims]
    if isinstance(found, Affine):
        turned = flip @ found.matrix[:-1, :-1] @ flip
        transform = sitk.AffineTransform(found.dims)
        transform.SetMatrix(turned.ravel().tolist())
        transform.SetTranslation((flip @ found.matrix[:-1, -1]).tolist())
        return transform
    if isinstance(found, Chain):
        return sitk.CompositeTransform([transform_of(part) for part in found.links[::-1]])
    assert isinstance(found, DisplacementField)
    mm = np.einsum("ij,j...->...i", found.grid.affine[:-1, :-1], found.ddf.numpy().astype(float)) @ flip
    return sitk.DisplacementFieldTransform(to_sitk(mm, found.grid, vectors=True))


def sitk_points(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    flip = FLIP[points.shape[1]]
    return np.array([transform.TransformPoint(p) for p in (points @ flip).tolist()]) @ flip
