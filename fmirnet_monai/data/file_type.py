"""How a file stores its image, so that what is made of it can be stored alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from fmirnet_monai.formats import FREESURFER, NIFTI, suffix_of
from fmirnet_monai.spatial.dicom_elements import is_dicom
from fmirnet_monai.spatial.headers import itk_header
from fmirnet_monai.utils import reading

from .dicom_source import SourceSeries
from .stored import ALIGNED, Stored

KINDS = {"unsigned_char": "u1", "char": "i1", "unsigned_short": "u2", "short": "i2", "unsigned_int": "u4", "int": "i4"}
KINDS |= {"unsigned_long": "u8", "long": "i8", "unsigned_long_long": "u8", "long_long": "i8"}
KINDS |= {"float": "f4", "double": "f8"}


def stored_as(path: str | Path) -> Stored:
    """How an image that has been read stores its values.

    Args:
        path: of an image that :py:func:`fmirnet_monai.data.read_image` reads.

    Raises:
        ValueError: naming it, when that can't be made out.
    """
    with reading(path, "the type that it is stored in can't be made out ({}); leave out --dtype same."):
        return _stored_as(Path(path))


def _stored_as(source: Path) -> Stored:
    if source.is_dir() or is_dicom(source):
        return SourceSeries.read(source).stored
    if suffix_of(source, (*NIFTI, *FREESURFER)):
        image: Any = nib.load(source)
        proxy = image.dataobj
        return Stored(proxy.dtype.newbyteorder("="), float(proxy.slope), float(proxy.inter))
    header = itk_header(source)
    return Stored(np.dtype(KINDS[header.GetComponentTypeAsString(header.GetComponentType())]))


def nifti_code(path: str | Path) -> int:
    """NIfTI's code of the space that an image lies in: its own where it is a NIfTI that has one, else ``ALIGNED``."""
    if not (Path(path).is_file() and suffix_of(path, NIFTI)):
        return ALIGNED
    header: Any = nib.load(path).header
    codes = [int(header[name]) for name in ("sform_code", "qform_code")]
    return next((code for code in codes if 1 <= code <= 4), ALIGNED)
