"""What a file's header says, compared with the file before anything is made by it.

ITK and nibabel make room for as many voxels as a header states, and ITK's parsers of text run over the end of what they
hold; so what can't be is refused here.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from fmirnet_monai.formats import suffix_of

DEFLATED = 1032  # bytes that one byte of deflate can stand for at most
SMALL = 1 << 24  # bytes that may be made room for unseen
HEAD = 1 << 20  # bytes that a header of text fits into
LONGEST = 4096  # characters of a line of it
DIGITS = 64  # characters of a number
FARTHEST = 1e12  # mm, beyond which products of three are no numbers in single precision
AXES = 10  # that MetaImage and NRRD are read with
TEXT_HEADERS = (".mha", ".mhd", ".nrrd", ".nhdr")
PAIRS = (".hdr", ".img", ".img.gz")
STATED = ("pixdim", "qoffset", "quatern", "srow")  # what names of numbers of a NIfTI's place begin with
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
GZIPPED = (".gz", ".mgz")


def itk_header(path: str | Path) -> Any:
    """ITK's reader of an image file, which has read the header, once that is known to be sound.

    Raises:
        ValueError: when ITK knows no such format, or the header can't be true.
        RuntimeError: of ITK.
    """
    import itk

    detached = _check_text(Path(path))
    _check_picture(Path(path))
    if suffix_of(path, PAIRS):
        check_stated_place(nib.load(path).header)
    header = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if header is None:
        raise ValueError("ITK knows no such format")
    header.SetFileName(str(path))
    header.ReadImageInformation()
    axes = range(header.GetNumberOfDimensions())
    size = [int(header.GetDimensions(axis)) for axis in axes]
    voxel = int(header.GetNumberOfComponents()) * int(header.GetComponentSize())
    file, raw = detached or (Path(path), False)
    check_room(size, voxel, file, 0 if raw else SMALL, 1 if raw else DEFLATED)
    place = [float(n) for axis in axes for n in (header.GetOrigin(axis), *header.GetDirection(axis))]
    spacing = [float(header.GetSpacing(axis)) for axis in axes]
    unknown = 0 in spacing and header.GetNameOfClass() != "GDCMImageIO"  # of DICOM slices positions say it
    if unknown or not all(abs(n) < FARTHEST for n in (*place, *spacing)):  # NaN neither
        raise ValueError(f"its spacing {spacing}, origin or directions are no finite place")
    return header


def check_room(size: Sequence[int], voxel: int, file: Path, unseen: int = 0, expansion: int = 1) -> None:
    """Raise ValueError where a file is too small for what its header states.

    Args:
        size: voxels along each axis.
        voxel: bytes of one.
        file: that holds them.
        unseen: bytes that it may always stand for.
        expansion: times its size that it may stand for.
    """
    if not size or min(size) < 1 or voxel < 1:
        raise ValueError(f"its header states {tuple(size)} voxels of {voxel} bytes")
    needed, held = math.prod(size) * voxel, file.stat().st_size
    if needed > max(unseen, expansion * held):
        raise ValueError(f"its header states {tuple(size)} voxels, {needed} bytes, which {held} bytes can't hold")


def check_nibabel(image: Any) -> None:
    """Raise ValueError where an image's file is too small for what its header states.

    Args:
        image: of nibabel, of which only the header has been read.
    """
    file, data = Path(image.file_map["image"].filename or image.file_map["header"].filename), image.dataobj
    size, voxel = [int(n) for n in data.shape], int(data.dtype.itemsize)
    if not file.name.lower().endswith(GZIPPED):
        check_room(size, voxel, file)
        return
    check_room(size, voxel, file, SMALL, DEFLATED)
    needed = math.prod(size) * voxel
    if needed > SMALL and not _unpacks_to(file, needed):
        raise ValueError(f"its header states {tuple(size)} voxels, {needed} bytes, which its content is too short for")


def check_stated_place(header: Any) -> None:
    """Raise ValueError where a NIfTI's header states a place that is not finite, which ITK would never make out."""
    stated = [np.ravel(header[name])[:4] for name in header if name.startswith(STATED)]
    if not all((np.abs(numbers) < FARTHEST).all() for numbers in stated):  # NaN neither
        raise ValueError("its place is not finite")


def _unpacks_to(file: Path, needed: int) -> bool:
    """Whether a gzip holds so many bytes: its last four say it, but for one of several parts, which are counted."""
    with file.open("rb") as stored:
        stored.seek(-4, 2)
        if needed < 2**32 and int.from_bytes(stored.read(4), "little") >= needed:
            return True
    try:
        with gzip.open(file) as content:
            while needed > 0 and (block := content.read(1 << 20)):
                needed -= len(block)
    except (OSError, EOFError, zlib.error):
        return False
    return needed <= 0


def _check_picture(path: Path) -> None:
    """Raise where a picture's size can't be, before ITK makes room for it."""
    if suffix_of(path, PICTURES):
        from PIL import Image

        with Image.open(path) as picture:
            check_room(picture.size, 1, path, SMALL, DEFLATED)


def _check_text(path: Path) -> tuple[Path, bool] | None:
    """Check the header of a MetaImage or an NRRD, where it is one.

    Returns:
        the file that holds its voxels, and whether they stand there uncompressed.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    nrrd = head.startswith(b"NRRD")
    if not nrrd and not path.name.lower().endswith(TEXT_HEADERS):
        return None
    end = re.search(rb"\r?\n\r?\n|\Z" if nrrd else rb"ElementDataFile[^\n]*\n|\Z", head)
    text = head[: end.end() if end else HEAD].decode("utf-8", "replace")
    fields = _fields(text, ":" if nrrd else "=")
    for line in text.splitlines():
        if len(line) > LONGEST or re.search(rf"[-+.\deE]{{{DIGITS + 1}}}", line):
            raise ValueError(f"its header has a line or a number of {len(line)} characters: {line[:40]!r}")
    dims = fields.get("dimension" if nrrd else "NDims", "")
    if not re.fullmatch(r"\d{1,2}", dims) or not 1 <= int(dims) <= AXES:
        raise ValueError(f"its header's number of axes is {dims!r}")
    sizes = fields.get("sizes" if nrrd else "DimSize", "").split()
    if len(sizes) != int(dims) or not all(re.fullmatch(r"\d{1,9}", size) and int(size) for size in sizes):
        raise ValueError(f"its header's size is {' '.join(sizes)!r} of {dims} axes")
    packed = fields.get("encoding", "") != "raw" if nrrd else fields.get("CompressedData", "").lower() == "true"
    named = fields.get("data file", fields.get("datafile", "")) if nrrd else fields.get("ElementDataFile", "")
    held = path if named in ("", "LOCAL", "Local", "local") else path.parent / named
    length = fields.get("CompressedDataSize", "0")
    if held.is_file() and not (length.isdigit() and int(length) <= held.stat().st_size):
        raise ValueError(f"its header states {length} bytes, more than {held.name} has")
    return held, not packed and held.is_file()


def _fields(text: str, sign: str) -> dict[str, str]:
    parts = (line.partition(sign) for line in text.splitlines() if not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in parts}
