"""The numbers that a file stores its values as, so that what is made of an image can be stored alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from fmirnet_monai.formats import FREESURFER, NIFTI, suffix_of
from fmirnet_monai.spatial.dicom_elements import is_dicom
from fmirnet_monai.spatial.headers import itk_header
from fmirnet_monai.utils import reading

FLOAT32, SAME = DTYPES = ("float32", "same")
ALIGNED = 2  # NIfTI's code of a place that is another image's
KINDS = {"unsigned_char": "u1", "char": "i1", "unsigned_short": "u2", "short": "i2", "unsigned_int": "u4", "int": "i4"}
KINDS |= {"unsigned_long": "u8", "long": "i8", "unsigned_long_long": "u8", "long_long": "i8"}
KINDS |= {"float": "f4", "double": "f8"}
SLAB = 1 << 20  # values that are worked on at a time


@dataclass(frozen=True)
class Stored:
    """How values are stored: ``value = slope * number + inter``.

    Attributes:
        kind: of the numbers.
        slope: of the values, not 0.
        inter: of the values.
        bits: that the whole numbers take up, where these are fewer than those of ``kind``.
    """

    kind: np.dtype[Any]
    slope: float = 1.0
    inter: float = 0.0
    bits: int | None = None

    @property
    def scaled(self) -> bool:
        """Whether values differ from their numbers."""
        return (self.slope, self.inter) != (1.0, 0.0)

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest whole number, as doubles that ``kind`` holds."""
        signed, bits = self.kind.kind == "i", self.bits or 8 * self.kind.itemsize
        low, high = -(1 << bits - 1) if signed else 0, (1 << bits - signed) - 1
        top = float(high)
        return float(low), top if int(top) <= high else float(np.nextafter(top, 0))

    def pack(self, values: NDArray[Any]) -> NDArray[Any]:
        """The numbers of values: whole ones rounded and clipped to what fits."""
        numbers = np.empty(values.shape, dtype=self.kind)
        flat, packed = values.reshape(-1), numbers.reshape(-1)
        for begin in range(0, flat.size, SLAB):
            part = (flat[begin : begin + SLAB].astype(np.float64) - self.inter) / self.slope
            if self.kind.kind in "iu":
                part = np.clip(np.rint(part), *self.limits)
            packed[begin : begin + SLAB] = part
        return numbers

    def unpack(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """The values of whole numbers whose slope and intercept are whole.

        Raises:
            ValueError: when these are not, so that values would be others.
        """
        if not self.scaled:
            return numbers
        if self.kind.kind not in "iu" or not (self.slope.is_integer() and self.inter.is_integer()):
            raise ValueError(f"its values are {self.slope:g} times the stored ones plus {self.inter:g}")
        return numbers.astype(np.int64) * int(self.slope) + int(self.inter)


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
        from .dicom_source import SourceSeries

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


def check_dtype(dtype: str) -> None:
    """Raise ValueError for a type that is none of ``DTYPES``."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be {' or '.join(DTYPES)}, got {dtype!r}.")
