"""Transforms of FSL, FreeSurfer, AFNI and elastix, told by what their files hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib

from fmirnet_monai.formats import NIFTI, suffix_of
from fmirnet_monai.utils import reading, reason, replacing, write_text

from .afni import EXTENSION, NAME, afni_field, afni_matrix, read_afni_field, read_afni_matrix
from .displacement import DisplacementField
from .elastix import read_elastix
from .frames import is_number
from .fsl import COEFFICIENTS, FIELD, fsl_field, fsl_matrix, read_fsl_field, read_fsl_matrix
from .grid import Grid
from .lta import lta_text, read_lta
from .maps import Affine, Map

Reader = Callable[[Path, Grid | None, Grid | None], Map]
SEEN = 4096  # bytes of a text that tell whose it is
AFNI_FIELD, ELASTIX, FREESURFER = ("AFNI", read_afni_field), ("elastix", read_elastix), ("FreeSurfer", read_lta)
FSL_FIELD, FSL_MATRIX, AFNI_MATRIX = ("FSL", read_fsl_field), ("FSL", read_fsl_matrix), ("AFNI", read_afni_matrix)
NOBODY: tuple[str, Reader | None] = ("", None)
TEXTS: dict[str, Any] = {"fsl": fsl_matrix, "lta": lta_text, "afni": afni_matrix}
FIELDS: dict[str, Any] = {"fsl": fsl_field, "afni": afni_field}


def read_foreign(path: str | Path, moving: Grid | None = None, fixed: Grid | None = None) -> Map | None:
    """Read a transform of another tool.

    Args:
        path: of a matrix of FLIRT or a field of FNIRT (FSL), an ``.lta`` (FreeSurfer), an ``.aff12.1D`` or a field of
            3dQwarp in NIfTI (AFNI), or ``TransformParameters.*.txt`` (elastix).
        moving: grid of the moving image, which one of FSL or AFNI was made for.
        fixed: grid of the fixed image.

    Returns:
        None for any other file, or where there is none.

    Raises:
        ValueError: when it can't be read, or needs an image that is not named.
    """
    tool, read = _whose(Path(path)) if Path(path).is_file() else NOBODY
    if read is None:
        return None
    with reading(path, f"can't be read as a transform of {tool}: {{}}."):
        for name, grid in (("moving", moving), ("fixed", fixed)):
            if grid is not None and grid.dims != 3 and read is not read_elastix:
                raise ValueError(f"it is of volumes, the {name} image has {grid.dims} axes")
        return read(Path(path), moving, fixed)


def _whose(path: Path) -> tuple[str, Reader | None]:
    if suffix_of(path, NIFTI):
        return _whose_field(path)
    if suffix_of(path):  # of other images
        return NOBODY
    with path.open("rb") as file:
        text = file.read(SEEN).decode("ascii", "replace").strip()
    if suffix_of(path, (".lta",)) or ("\nnxforms" in text and "=" in text):
        return FREESURFER
    if re.match(r"(//[^\n]*\n|\s)*\(\w", text) or re.search(r"^\(Transform(Parameters)? ", text, re.MULTILINE):
        return ELASTIX
    rows = [words for line in text.splitlines() if (words := line.split()) and not line.startswith("#")]
    return AFNI_MATRIX if suffix_of(path, (".1d",)) else _whose_matrix(rows)


def _whose_matrix(rows: list[list[str]]) -> tuple[str, Reader | None]:
    if not all(is_number(word) for row in rows for word in row):
        return NOBODY
    if [len(row) for row in rows] == [4] * 4 and [float(word) for word in rows[3]] == [0, 0, 0, 1]:
        return FSL_MATRIX
    return AFNI_MATRIX if sum(map(len, rows)) == 12 else NOBODY


def _whose_field(path: Path) -> tuple[str, Reader | None]:
    try:
        header: Any = nib.load(path).header
        intent, extensions = int(header["intent_code"]), [extension.get_code() for extension in header.extensions]
        name, axes = header.get_intent()[2], len(header.get_data_shape())
    except Exception:  # which the reader of fields puts into words
        return NOBODY
    if intent in (FIELD, *COEFFICIENTS):
        return FSL_FIELD
    return AFNI_FIELD if axes == 5 and intent == 0 and (name == NAME or EXTENSION in extensions) else NOBODY


def write_foreign(
    found: Affine | DisplacementField, path: str | Path, form: str, moving: Grid | None, fixed: Grid | None
) -> Path:
    """Write a map as another tool has it, whole or not at all.

    Args:
        found: an affine map for text, a field for NIfTI, which lies on the fixed image.
        path: to write.
        form: ``fsl``, ``lta`` or ``afni``.
        moving: grid of the moving image; ``afni`` can do without where no image is oblique.
        fixed: grid of the fixed image.

    Raises:
        ValueError: when an image is not given, or the map is not of volumes.
        OSError: when it can't be written.
    """
    if isinstance(found, DisplacementField):
        fixed = found.grid
    require_images(path, form, moving=moving, fixed=fixed)
    if {found.dims, *(grid.dims for grid in (moving, fixed) if grid is not None)} != {3}:
        raise ValueError(
            f"{path}: --format {form} holds maps of volumes, this one or an image of it is 2-D; write .h5."
        )
    if isinstance(found, Affine):
        try:
            text = TEXTS[form](found, moving, fixed)
        except ValueError as error:
            raise ValueError(
                f"{path}: --format {form} holds the map back, and this one has none; write .tfm."
            ) from error
        write_text(path, text)
        return Path(path)
    image = FIELDS[form](found, moving, fixed)
    with replacing(path) as partial:
        try:
            nib.save(image, partial)
        except (ValueError, EOFError) as error:
            raise OSError(f"{path}: can't be written: {reason(error)}; check the folder's rights and space.") from error
    return Path(path)


def require_images(path: str | Path, form: str, **images: Grid | None) -> None:
    """Raise ValueError where a form holds only with an image that is not given."""
    missing = [f"--{name}" for name, grid in images.items() if grid is None]
    if missing and form in ("fsl", "lta"):
        raise ValueError(f"{path}: --format {form} holds only with its images; name {' and '.join(missing)}.")
