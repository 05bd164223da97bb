"""Whether a file says where the patient's sides are, or whether a reader has only supposed it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fmirnet_monai.formats import FREESURFER, NIFTI, suffix_of
from fmirnet_monai.spatial.dicom_elements import is_dicom
from fmirnet_monai.spatial.headers import HEAD, PICTURES, TEXT_HEADERS

from .dicom import slices_of

PATIENT = rb"(?im)^space: *(right|left|RAS|LAS|LPS|scanner)"  # of an NRRD; others have no sides
DIRECTION = rb"(?m)^(TransformMatrix|Rotation|Orientation) *="  # of a MetaImage


def has_spacing(path: str | Path) -> bool:
    """Whether a file of this name can hold the size of a voxel in mm; a picture's can't."""
    return not suffix_of(path, PICTURES)


def has_orientation(path: str | Path) -> bool:
    """Whether a file that can be read as an image states where the patient's right, front and head are.

    A NIfTI whose qform and sform codes are both 0 doesn't, nor does a FreeSurfer file without a good RAS flag, an
    Analyze file, an NRRD in no patient's space, a MetaImage without a matrix or a DICOM file without directions. A
    folder of slices could not have been stacked without.

    Args:
        path: image; one that is not there any more is taken to have done so.
    """
    file = Path(path)
    if suffix_of(file, PICTURES) or not file.is_file():
        return not suffix_of(file, PICTURES)
    try:
        return _stated(file)
    except Exception:  # it has been read before, so that it has changed or gone since
        return False


def _stated(file: Path) -> bool:
    if suffix_of(file, (*NIFTI, *FREESURFER, ".hdr", ".img")):
        import nibabel as nib

        header: Any = nib.load(file).header
        codes = [int(header[name]) for name in ("qform_code", "sform_code", "goodRASFlag") if name in header]
        return any(code > 0 for code in codes)
    if is_dicom(file):
        return bool(slices_of([str(file)]))
    if suffix_of(file, TEXT_HEADERS):
        with file.open("rb") as opened:
            head = opened.read(HEAD)
        return bool(re.search(PATIENT if head.startswith(b"NRRD") else DIRECTION, head))
    return True
