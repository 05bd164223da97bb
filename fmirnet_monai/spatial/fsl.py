"""Transforms of FSL: matrices of FLIRT and fields of FNIRT.

Both are in FSL's coordinates: voxel index times voxel size, the first axis from its other end where an image is not
stored radiologically (the determinant of its affine is positive). So they hold only with the images that they belong
to. A matrix takes the moving image to the fixed one; a field, which lies on the fixed image, leads to the moving one.
Jenkinson and Smith, Medical Image Analysis 2001; FSL's own fslpy has the same (``fsl.transform``).
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from .displacement import DisplacementField
from .frames import Matrix, field_from_frames, from_frames, numbers, small_text, to_frames, vectors_in_frames
from .geometry import nifti, read_nifti
from .grid import Grid, transform
from .maps import Affine

FIELD = 2006  # NIfTI's codes of FSL: of fields in mm, of fields' coefficients
COEFFICIENTS = (2007, 2008, 2009)


def fsl_frame(grid: Grid) -> Matrix:
    """From RAS+ mm to FSL's coordinates of an image, ``(4, 4)``."""
    scaled = np.diag([*grid.spacing, 1.0])
    if np.linalg.det(grid.affine) > 0:
        scaled[0, 0], scaled[0, 3] = -grid.spacing[0], (grid.shape[0] - 1) * grid.spacing[0]
    return scaled @ np.linalg.inv(grid.affine)


def read_fsl_matrix(path: Path, moving: Grid | None, fixed: Grid | None) -> Affine:
    """A matrix of FLIRT as a map; ValueError when an image is not named."""
    matrix = numbers(small_text(path).split(), 16).reshape(4, 4)
    if moving is None or fixed is None:
        raise ValueError(
            f"{path}: is a matrix of 4 x 4 numbers. If it is of FSL, name the images that it was made for by --moving "
            "and --fixed (one transform at a time); if of greedy or Convert3D, write it as c3d_affine_tool IN.mat "
            "-oitk OUT.tfm."
        )
    return from_frames(np.linalg.inv(matrix), fsl_frame(moving), fsl_frame(fixed))


def fsl_matrix(found: Affine, moving: Grid, fixed: Grid) -> str:
    """Text of an affine map as a matrix of FLIRT."""
    matrix = np.linalg.inv(to_frames(found, fsl_frame(moving), fsl_frame(fixed)))
    return "".join(" ".join(f"{number:.15g}" for number in row) + "\n" for row in matrix)


def read_fsl_field(path: Path, moving: Grid | None, _: Grid | None) -> DisplacementField:
    """A field of FNIRT as a map, whether its vectors are relative or absolute; ValueError without the moving image."""
    image, place = read_nifti(path)
    if int(image.header["intent_code"]) in COEFFICIENTS:
        raise ValueError(
            f"{path}: holds coefficients of FSL's FNIRT; make them a field: fnirtfileutils --in=IN --ref=FIXED "
            "--withaff --out=OUT."
        )
    vectors = np.asanyarray(image.dataobj)
    if vectors.ndim != 4 or vectors.shape[3] != 3 or vectors.dtype.kind not in "iuf":
        raise ValueError(f"a field is (X, Y, Z, 3) numbers, this has shape {vectors.shape} of {vectors.dtype}")
    if moving is None:
        raise ValueError(
            f"{path}: is a field of FSL, which holds only with its moving image; name that by --moving (one transform "
            "at a time)."
        )
    grid = Grid(vectors.shape[:3], place)
    frames = fsl_frame(moving), fsl_frame(grid)
    return field_from_frames(vectors, grid, *frames, absolute=_is_absolute(vectors, grid, *frames))


def _is_absolute(vectors: NDArray, grid: Grid, moving: Matrix, fixed: Matrix) -> bool:
    """Whether vectors are places, not shifts, which no header says: what moves points less unevenly in space is taken.

    FSL's tools compare the same in their own coordinates. Some 30 voxels along each axis are looked at.
    """
    steps = tuple(slice(0, n, max(1, n // 30)) for n in grid.shape)
    places = grid.to_world(np.moveaxis(np.mgrid[steps], 0, -1))
    spread = [
        (transform(np.linalg.inv(moving), starts + vectors[steps]) - places).std((0, 1, 2)).sum()
        for starts in (transform(fixed, places), 0.0)
    ]
    return bool(spread[1] < spread[0])


def fsl_field(field: DisplacementField, moving: Grid, _: Grid | None) -> nib.Nifti1Image:
    """A map as a field of FNIRT, of relative vectors."""
    image = nifti(vectors_in_frames(field, fsl_frame(moving), fsl_frame(field.grid)), field.grid)
    image.header.set_intent(FIELD)
    return image
