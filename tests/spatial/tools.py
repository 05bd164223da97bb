"""Other tools' libraries and files, for tests of their transforms."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import nitransforms
import numpy as np
from scipy.spatial.transform import Rotation

from fmirnet_monai.spatial import Grid, Map
from fmirnet_monai.spatial.geometry import nifti
from fmirnet_monai.spatial.grid import precise

FILES = Path(nitransforms.__file__).parent / "tests" / "data"  # of FSL, AFNI and FreeSurfer, in its wheel
SIZE = (57, 67, 56)  # of the image that they were made for, and its place as RAS
RAS = np.array([[2.75, 0, 0, 0.375], [0, 2.75, 0, 1.125], [0, 0, 2.75, -14], [0, 0, 0, 1]])


def tool_grid(orientation: str) -> Grid:
    """The image of :py:data:`FILES`: the same one as RAS, LAS, LPS, or turned by a few degrees."""
    affine = RAS.copy()
    affine[:3, 3] -= RAS[:3, :3] @ np.array(SIZE) / 2
    for axis in {"RAS": (), "LAS": (0,), "LPS": (0, 1)}[orientation]:
        affine[:3, 3] += affine[:3, axis] * (SIZE[axis] - 1)
        affine[:3, axis] *= -1
    return Grid(SIZE, affine)


def tilted_grid(rng: np.random.Generator, degrees: float = 20.0) -> Grid:
    """With axes flipped and interchanged, anisotropic, and turned by at most so much."""
    order, signs = rng.permutation(3), rng.choice([-1.0, 1.0], 3)
    axes = (np.eye(3) * signs)[:, order]
    turn = Rotation.from_rotvec(np.deg2rad(degrees) * rng.uniform(-0.5, 0.5, 3)).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes * np.round(rng.uniform(0.6, 3.0, 3), 2)
    affine[:3, 3] = rng.uniform(-40, 40, 3)
    return Grid(tuple(int(n) for n in rng.integers(7, 14, 3)), affine)


def image(grid: Grid, path: Path | None = None) -> nib.Nifti1Image:
    """Some image on a grid, written where there is a path."""
    made = nifti(np.random.default_rng(0).normal(size=grid.shape).astype(np.float32), grid)
    if path:
        nib.save(made, path)
    return made


def within(grid: Grid, count: int = 40, seed: int = 0) -> np.ndarray:
    """Points ``(count, 3)`` in RAS+ mm inside a grid."""
    return grid.to_world(np.random.default_rng(seed).uniform(0, np.array(grid.shape) - 1, (count, 3)))


def moved(found: Map, points: np.ndarray) -> np.ndarray:
    """Points through a map."""
    import torch

    return found(torch.from_numpy(points).to(precise(torch.device("cpu"))))[0].numpy()
