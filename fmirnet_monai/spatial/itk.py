"""Transforms to and from ITK's files, which SimpleITK, ANTs and 3D Slicer read and write too.

Fields in image files: :py:mod:`.files`; HDF5: :py:mod:`.hdf5`; text and MATLAB's form: :py:mod:`.parameters`; files of
other tools: :py:mod:`.foreign`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fmirnet_monai.formats import (
    DICOM,
    HDF5,
    TRANSFORMS,
    WRITTEN_FORMS,
    WRITTEN_VOLUMES,
    form_of,
    known_suffix,
    suffix_of,
)
from fmirnet_monai.utils import reading, reason, replacing

from .dicom import read_registration
from .dicom_elements import is_dicom
from .displacement import DisplacementField, Inverse
from .files import read_displacement, write_displacement
from .foreign import read_foreign, write_foreign
from .grid import Grid
from .hdf5 import read_hdf5, write_hdf5
from .itk_transform import COMPOSITE, Spline, flip_lps, from_itk_transform, from_part, to_part
from .maps import Affine, Map, chain
from .parameters import read_parts, write_parts

__all__ = ["Spline", "flip_lps", "from_itk_transform", "own_grid", "read_transform", "write_transform"]

MINC = (".xfm",)  # whose reader no wheel of ITK has


def read_transform(path: str | Path, moving: Grid | None = None, fixed: Grid | None = None) -> Map:
    """Read a displacement field, any transform of ITK (``.h5``, ``.tfm``, ``.txt``, ``.mat``), one of FSL,
    FreeSurfer, AFNI or elastix, or a DICOM (Deformable) Spatial Registration object.

    Args:
        path: of the file.
        moving: grid of the moving image, without which transforms of FSL mean nothing, see
            :py:func:`fmirnet_monai.spatial.foreign.read_foreign`.
        fixed: grid of the fixed image.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it can't be read whole, or is not finite, or needs an image that is not given.
    """
    found = read_foreign(path, moving, fixed)
    dicom = suffix_of(path, DICOM) or (Path(path).is_file() and is_dicom(Path(path)))
    if found is None and not dicom and not suffix_of(path, TRANSFORMS):
        return read_displacement(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such transform: {path}")
    if found is None:
        remedy = "give its map in another form" if dicom else "write it by ITK or ANTs"
        with reading(path, f"not a transform, or damaged: {{}}; get it again, or {remedy}."):
            found = read_registration(path) if dicom else _read(Path(path))
    for part in found.parts():
        if isinstance(part, DisplacementField) and not part.ddf.isfinite().all():
            raise ValueError(f"{path}: {int((~part.ddf.isfinite()).any(0).sum())} of its vectors are NaN or infinite.")
    return found


def _read(path: Path) -> Map:
    if suffix_of(path, MINC):
        raise ValueError(f"{path}: transforms of MINC are not read; write its displacement field as an image.")
    parts = [*(read_hdf5(path) if suffix_of(path, HDF5) else read_parts(path))]
    if parts and parts[0][0].startswith(COMPOSITE):
        parts = parts[1:]
    if not parts:
        raise ValueError("it holds no transform")
    return chain(from_part(part) for part in parts[::-1])  # the last one is applied first


def write_transform(
    found: Map,
    path: str | Path,
    grid: Grid | None = None,
    form: str = "itk",
    moving: Grid | None = None,
    fixed: Grid | None = None,
) -> Path:
    """Write a map, whole or not at all; the suffix chooses what the file holds.

    Args:
        found: to write.
        path: ``.nii.gz``, ``.nii``, ``.mha`` or ``.nrrd`` for a displacement field; ``.h5`` for a transform of ITK, a
            composite of its parts, each as it is; ``.tfm``, ``.txt`` or ``.mat`` for an affine one. Of FSL ``.mat`` or
            ``.nii.gz``, of FreeSurfer ``.lta``, of AFNI ``.aff12.1D`` or ``.nii.gz``.
        grid: that a displacement field, or in ``.h5`` a map with an inverse in it, is sampled on; by default that of
            the part that is applied first.
        form: ``itk``, ``fsl``, ``lta`` or ``afni``.
        moving: grid of the moving image, which forms other than ITK's need, see
            :py:func:`fmirnet_monai.spatial.foreign.write_foreign`.
        fixed: grid of the fixed image.

    Raises:
        ValueError: for another form or suffix, a map that the format can't hold or that needs a grid, or an image that
            is not given.
        OSError: when it can't be written.
    """
    suffix = known_suffix(path, WRITTEN_FORMS[form_of(path, form)])
    if suffix in WRITTEN_VOLUMES:
        place = grid or own_grid(found)
        if place is None:
            raise ValueError(f"{path}: this transform has no grid of its own; name a reference image, or write .h5.")
        field = DisplacementField.of(found, place)[0]
        return write_displacement(field, path) if form == "itk" else write_foreign(field, path, form, moving, fixed)
    if suffix != ".h5" and not isinstance(found, Affine):
        raise ValueError(
            f"{path}: {suffix} holds an affine transform, this one is none; write .h5, .nii.gz or .mha"
            f"{'' if form == 'itk' else ', by --format itk, or .nii.gz by fsl or afni'}."
        )
    if form != "itk" and isinstance(found, Affine):
        return write_foreign(found, path, form, moving, fixed)
    with replacing(path) as partial:
        try:
            _write(found, partial, grid)
        except (RuntimeError, OSError) as error:
            raise OSError(f"{path}: can't be written: {reason(error)}; check the folder's rights and space.") from error
    return Path(path)


def _write(found: Map, path: Path, grid: Grid | None) -> None:
    maps = list(found.parts())
    if grid is not None and any(isinstance(part, Inverse) for part in maps):
        maps = [DisplacementField.of(found, grid)[0]]
    parts = [to_part(part) for part in maps[::-1]]
    if len(parts) > 1 or not isinstance(maps[0], Affine):
        parts = [(f"{COMPOSITE}_double_{found.dims}_{found.dims}", np.zeros(0), np.zeros(0)), *parts]
    write_hdf5(parts, path) if suffix_of(path, HDF5) else write_parts(parts, path)


def own_grid(found: Map) -> Grid | None:
    """The grid that a map's first part lies on, where it has one."""
    first = found.parts()[0]
    if isinstance(first, Inverse):
        return first.field.grid
    return first.grid if isinstance(first, DisplacementField) else None
