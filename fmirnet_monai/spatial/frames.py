"""Transforms in coordinates that another tool gives to each image, such as scaled voxels.

A frame is a matrix ``(4, 4)`` from RAS+ mm to such coordinates of one image. A transform there takes coordinates of the
fixed image to those of the moving one, as maps do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .displacement import DisplacementField
from .grid import Grid, transform
from .headers import FARTHEST, HEAD
from .maps import Affine

Matrix = NDArray[np.float64]


def from_frames(matrix: ArrayLike, moving: Matrix, fixed: Matrix) -> Affine:
    """The map whose matrix ``(4, 4)`` between the two frames is given."""
    return Affine(np.linalg.inv(moving) @ np.asarray(matrix) @ fixed)


def to_frames(found: Affine, moving: Matrix, fixed: Matrix) -> Matrix:
    """The matrix of an affine map between the two frames."""
    return moving @ found.matrix @ np.linalg.inv(fixed)


def field_from_frames(
    vectors: NDArray, grid: Grid, moving: Matrix, fixed: Matrix, absolute: bool = False
) -> DisplacementField:
    """The map whose vectors between the two frames are given.

    Args:
        vectors: ``(*grid.shape, 3)`` to be added to each voxel's coordinates in the fixed frame.
        grid: that they lie on.
        moving: frame of the moving image.
        fixed: frame of the grid.
        absolute: the vectors are the coordinates in the moving frame themselves.
    """
    world, back = np.empty(vectors.shape, dtype=np.float32), np.linalg.inv(moving)
    for slab in grid.slabs():
        places = grid.to_world(grid.indices(slab).numpy())
        starts = 0.0 if absolute else transform(fixed, places)
        world[slab] = transform(back, starts + vectors[slab]) - places
    return DisplacementField.from_world_vectors(world, grid)


def vectors_in_frames(field: DisplacementField, moving: Matrix, fixed: Matrix) -> NDArray[np.float32]:
    """What :py:func:`field_from_frames` takes, ``(*grid.shape, 3)``."""
    vectors = np.empty((*field.grid.shape, 3), dtype=np.float32)
    for slab in field.grid.slabs():
        places = field.grid.to_world(field.grid.indices(slab).numpy())
        vectors[slab] = transform(moving, places + field.world_vectors(slab)) - transform(fixed, places)
    return vectors


def small_text(path: Path) -> str:
    """Text of a file that holds no more than some matrices.

    Raises:
        ValueError: when it is longer than 1 MiB.
    """
    with path.open("rb") as file:
        content = file.read(HEAD + 1)
    if len(content) > HEAD:
        raise ValueError(f"it is longer than {HEAD} bytes")
    return content.decode("utf-8", "replace")


def numbers(words: Iterable[str], count: int | None = None) -> NDArray[np.float64]:
    """Words as numbers.

    Raises:
        ValueError: when one is none, is not finite or too large, or there are not ``count`` of them.
    """
    found = np.array(list(words), dtype=np.float64)
    if count is not None and len(found) != count:
        raise ValueError(f"it has {len(found)} numbers where {count} belong")
    if not (np.abs(found) < FARTHEST).all():  # NaN neither
        raise ValueError("its numbers are not finite, or too large")
    return found


def is_number(word: str) -> bool:
    """Whether a word is a decimal number."""
    return re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", word) is not None
