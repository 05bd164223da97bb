"""Transforms to and from ITK's files, which SimpleITK, ANTs and 3D Slicer read and write too.

Fields in image files: :py:mod:`.files`; in HDF5: :py:mod:`.hdf5`; files of other tools: :py:mod:`.foreign`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from .files import read_displacement, to_lps, write_displacement
from .foreign import read_foreign, write_foreign
from .geometry import flip, set_geometry
from .grid import Grid
from .hdf5 import read_hdf5, write_hdf5
from .itk_transform import ItkTransform, flip_lps, from_itk_transform
from .maps import Affine, Map, chain
from .parameters import check_transform

__all__ = ["ItkTransform", "flip_lps", "from_itk_transform", "own_grid", "read_transform", "write_transform"]


def read_transform(path: str | Path, moving: Grid | None = None, fixed: Grid | None = None) -> Map:
    """Read a displacement field, any transform of ITK (``.h5``, ``.tfm``, ``.txt``, ``.mat``, ``.xfm``), one of FSL,
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
            found = read_registration(path) if dicom else _read(path)
    for part in found.parts():
        if isinstance(part, DisplacementField) and not part.ddf.isfinite().all():
            raise ValueError(f"{path}: {int((~part.ddf.isfinite()).any(0).sum())} of its vectors are NaN or infinite.")
    return found


def _read(path: str | Path) -> Map:
    found = read_hdf5(path) if suffix_of(path, HDF5) else None
    if found is not None:
        return found
    import itk

    if not suffix_of(path, HDF5):
        check_transform(Path(path))
    return chain(from_itk_transform(transform) for transform in itk.transformread(str(path))[::-1])


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
    parts = list(found.parts())
    if grid is not None and any(isinstance(part, Inverse) for part in parts):
        parts = [DisplacementField.of(found, grid)[0]]
    held = [_sampled(part) for part in parts]
    plain = [part for part in held if not isinstance(part, ItkTransform)]
    if suffix_of(path, HDF5) and len(plain) == len(held):
        write_hdf5(plain, path)
    else:
        import itk

        itk.transformwrite([_to_itk_transform(held)], str(path))


def own_grid(found: Map) -> Grid | None:
    """The grid that a map's first part lies on, where it has one."""
    first = found.parts()[0]
    if isinstance(first, Inverse):
        return first.field.grid
    return first.grid if isinstance(first, DisplacementField) else None


def _sampled(part: Map) -> Affine | DisplacementField | ItkTransform:
    """What a file can hold of a map: an inverse is sampled on its field's grid."""
    if isinstance(part, Inverse):
        return DisplacementField.of(part, part.field.grid)[0]
    assert isinstance(part, Affine | DisplacementField | ItkTransform), part
    return part


def _to_itk_transform(parts: Sequence[Affine | DisplacementField | ItkTransform]) -> Any:
    """One transform of ITK, a composite where there are several parts."""
    if len(parts) == 1 and isinstance(parts[0], ItkTransform):
        return parts[0].transform
    if len(parts) == 1 and isinstance(parts[0], Affine):
        return _to_itk_affine(parts[0])
    import itk

    composite = itk.CompositeTransform[itk.D, parts[0].dims].New()
    for part in parts[::-1]:  # the last one added is the first one applied
        if isinstance(part, ItkTransform):
            composite.AddTransform(part.transform)
        elif isinstance(part, Affine):
            composite.AddTransform(_to_itk_affine(part))
        else:
            vectors = itk.image_view_from_array(to_lps(part).astype(np.float64), is_vector=True)
            set_geometry(vectors, part.grid)
            inner = itk.DisplacementFieldTransform[itk.D, part.dims].New()
            inner.SetDisplacementField(vectors)
            composite.AddTransform(inner)
    return composite


def _to_itk_affine(found: Affine) -> Any:
    import itk

    turn = flip(found.dims)
    result = itk.AffineTransform[itk.D, found.dims].New()
    result.SetMatrix(itk.matrix_from_array(np.ascontiguousarray(turn @ found.matrix[:-1, :-1] @ turn)))
    result.SetOffset([float(v) for v in turn @ found.matrix[:-1, -1]])
    return result
