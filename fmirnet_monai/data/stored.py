"""The numbers that values are stored as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOAT32, SAME = DTYPES = ("float32", "same")
ALIGNED = 2  # NIfTI's code of a place that is another image's
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


def check_dtype(dtype: str) -> None:
    """Raise ValueError for a type that is none of ``DTYPES``."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be {' or '.join(DTYPES)}, got {dtype!r}.")
