"""The numbers of ITK's transforms: in its files of text and of MATLAB, and whether they can be.

ITK takes any number for a size or an angle, so that they are looked at before it works with them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .headers import DIGITS, FARTHEST

HEADER = "#Insight Transform File V1.0"
ON_GRID = ("BSpline", "DisplacementField")  # kinds whose fixed parameters are size, origin, spacing and directions
KINDS = {0: "f8", 10: "f4", 1000: "f8", 1010: "f4"}  # of MATLAB's numbers, from 1000 on the last byte first
Part = tuple[str, NDArray, NDArray]  # kind as ITK names it, parameters, fixed parameters


def read_parts(path: Path) -> Iterator[Part]:
    """The transforms of ITK's ``.mat`` or of its text, in the file's order; ValueError where it is damaged."""
    if path.name.lower().endswith(".mat"):
        return _of_matlab(path.read_bytes())
    return _of_text(path.read_text("utf-8", "replace"))


def write_parts(parts: Sequence[Part], path: Path) -> None:
    """Write transforms in ITK's order, as ``.mat`` or text; OSError when it can't be written."""
    if path.name.lower().endswith(".mat"):
        from scipy.io import savemat

        (kind, parameters, fixed) = parts[0]  # its form holds one of a kind
        savemat(path, {kind: parameters, "fixed": fixed}, format="4", oned_as="column")
        return
    lines = [HEADER]
    for number, (kind, parameters, fixed) in enumerate(parts):
        lines += [f"#Transform {number}", f"Transform: {kind}", f"Parameters: {_words(parameters)}"]
        lines += [f"FixedParameters: {_words(fixed)}"]
    path.write_text("\n".join(lines) + "\n")


def _words(numbers: NDArray) -> str:
    return " ".join(repr(float(number)) for number in numbers)


def check_parameters(kind: str, parameters: ArrayLike, fixed: ArrayLike) -> None:
    """Raise ValueError where the numbers of a transform are not finite, or don't fit its grid.

    Args:
        kind: as ITK names it, such as ``BSplineTransform_double_3_3``.
        parameters: of the transform.
        fixed: parameters.
    """
    values, given = (np.asarray(numbers, dtype=np.float64).ravel() for numbers in (parameters, fixed))
    if not (np.abs(np.concatenate([values, given])) < FARTHEST).all():
        raise ValueError(f"parameters of its {kind[:DIGITS]} are not finite, or too large")
    if kind.startswith(ON_GRID):
        dims = int(kind.split("_")[2])  # a B-spline's order may follow
        size = given[:dims]
        whole = len(given) == dims * (dims + 3) and (size >= 1).all() and (size == np.rint(size)).all()
        if not whole or np.prod(size) * dims != len(values):
            raise ValueError(f"its {kind[:DIGITS]} has {len(values)} parameters on a grid of {size.tolist()}")


def _of_text(text: str) -> Iterator[Part]:
    parts: list[dict[str, list[str]]] = []
    for line in text.splitlines():
        match = re.match(r"\s*(Transform|Parameters|FixedParameters)\s*:(.*)", line)
        words = match[2].split() if match else re.findall(r"[-+.\deE]+", line)
        if any(len(word) >= DIGITS for word in words):
            raise ValueError(f"a number of its line {line[:40]!r} is more than {DIGITS - 1} characters long")
        if match:
            parts += [{}] if match[1] == "Transform" or not parts else []
            parts[-1][match[1]] = words
    for part in parts:
        parameters, fixed = (np.array(part.get(name, []), float) for name in ("Parameters", "FixedParameters"))
        yield " ".join(part.get("Transform", [])), parameters, fixed


def _of_matlab(content: bytes) -> Iterator[Part]:
    """Of records of MATLAB's level 4, each a header, a name and numbers: parameters, then fixed ones."""
    records = list(_records(content))
    if not records or len(records) % 2:
        raise ValueError(f"it holds {len(records)} records, not two for each transform")
    for (kind, parameters), (_, fixed) in zip(records[::2], records[1::2], strict=True):
        yield kind, parameters, fixed


def _records(content: bytes) -> Iterator[tuple[str, NDArray[np.float64]]]:
    begin = 0
    while begin < len(content):
        head = content[begin : begin + 20]
        if len(head) < 20:
            raise ValueError("it ends within a header")
        order = "<" if head[2:4] == b"\0\0" else ">"
        number, rows, columns, imaginary, name = struct.unpack(f"{order}5i", head)
        if number not in KINDS or rows < 0 or columns != 1 or imaginary or not 1 < name <= DIGITS:
            raise ValueError(f"it holds {rows} x {columns} numbers of kind {number}, no parameters of a transform")
        kind = np.dtype(order + KINDS[number])
        data = begin + 20 + name
        if data + rows * kind.itemsize > len(content):
            raise ValueError(f"it ends within {rows} numbers")
        values = np.frombuffer(content, kind, rows, data).astype(np.float64)
        yield content[begin + 20 : data].rstrip(b"\0").decode("ascii", "replace"), values
        begin = data + rows * kind.itemsize
