"""Transforms of AFNI: matrices (``.aff12.1D``) and fields of 3dQwarp in NIfTI.

Both lead from the base, the fixed image, to the source in LPS mm. AFNI leaves out how an oblique image is turned: it
takes each of the image's axes for the nearest one of the body, from the same first voxel on. So they hold with the
images that they were made for, unless neither is oblique.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from fmirnet_monai.utils import warn

from .displacement import DisplacementField
from .frames import Matrix, field_from_frames, from_frames, numbers, small_text, to_frames, vectors_in_frames
from .geometry import flip, nifti, read_nifti
from .grid import Grid
from .maps import Affine

NAME = "AFNI"  # intent of fields that are written here: AFNI's own have a header of its
EXTENSION = 4  # NIfTI's code of that header
HEAD = "# 3dAllineate matrices (DICOM-to-DICOM, row-by-row):"


def afni_frame(grid: Grid | None) -> Matrix:
    """From RAS+ mm to AFNI's coordinates of an image, ``(4, 4)``; of one that is not oblique, LPS mm."""
    frame = np.eye(4)
    frame[:3, :3] = flip(3)
    if grid is None:
        return frame
    axes = np.zeros((3, 3))
    for voxel, (world, sign) in enumerate(nib.orientations.io_orientation(grid.affine)):
        axes[int(world), voxel] = sign * grid.spacing[voxel]
    straight = grid.affine.copy()
    straight[:3, :3] = axes
    return frame @ straight @ np.linalg.inv(grid.affine)


def read_afni_matrix(path: Path, moving: Grid | None, fixed: Grid | None) -> Affine:
    """A matrix of 3dAllineate or 3dvolreg as a map; images that are not named are taken not to be oblique."""
    lines = small_text(path).splitlines()
    rows = [line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if any("shift" in line for line in lines if line.lstrip().startswith("#")):
        raise ValueError("it holds parameters, not a matrix, which 3dAllineate -1Dmatrix_save writes")
    if len(rows) > 1 and len(rows[0]) == 12:
        raise ValueError(f"it holds {len(rows)} matrices, of a series; one is wanted")
    matrix = np.eye(4)
    matrix[:3] = numbers((word for row in rows for word in row), 12).reshape(3, 4)
    _tell_unknown(path, moving, fixed)
    return from_frames(matrix, afni_frame(moving), afni_frame(fixed))


def afni_matrix(found: Affine, moving: Grid | None, fixed: Grid | None) -> str:
    """Text of an affine map as a matrix of AFNI."""
    matrix = to_frames(found, afni_frame(moving), afni_frame(fixed))
    return f"{HEAD}\n{' '.join(f'{number:.15g}' for number in matrix[:3].flat)}\n"


def read_afni_field(path: Path, moving: Grid | None, _: Grid | None) -> DisplacementField:
    """A field of 3dQwarp as a map, which lies on the base; a source that is not named is taken not to be oblique."""
    image, place = read_nifti(path)
    if len(image.shape) != 5 or image.shape[3:] != (1, 3) or image.get_data_dtype().kind not in "iuf":
        raise ValueError(f"a field is (X, Y, Z, 1, 3) numbers, this has shape {image.shape}")
    grid = Grid(image.shape[:3], place)
    _tell_unknown(path, moving, grid)
    vectors = np.asanyarray(image.dataobj)[:, :, :, 0]
    return field_from_frames(vectors, grid, afni_frame(moving), afni_frame(grid))


def afni_field(field: DisplacementField, moving: Grid | None, _: Grid | None) -> nib.Nifti1Image:
    """A map as a field of 3dQwarp."""
    vectors = vectors_in_frames(field, afni_frame(moving), afni_frame(field.grid))
    image = nifti(vectors[:, :, :, None], field.grid)
    image.header.set_intent("none", name=NAME)
    return image


def _tell_unknown(path: Path, moving: Grid | None, fixed: Grid | None) -> None:
    if moving is None or fixed is None:
        warn(
            f"{path}: AFNI leaves out how oblique images are turned; it is taken that these are not oblique. Name them "
            "by --moving and --fixed to be sure."
        )
