"""ITK's HDF5 form of transforms (``.h5``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .headers import DEFLATED, SMALL, check_room
from .parameters import Part

GROUP, KIND, PARAMETERS, FIXED = "TransformGroup", "TransformType", "TransformParameters", "TransformFixedParameters"
HEAP = b"GCOL\1\0\0\0"
TEXT = h5py.string_dtype("ascii")


def write_hdf5(parts: Sequence[Part], path: str | Path) -> None:
    """Write transforms in ITK's order; OSError when it can't be written."""
    with h5py.File(path, "w") as file:
        group = file.create_group(GROUP)
        for number, (kind, parameters, fixed) in enumerate(parts):
            entry = group.create_group(str(number))
            entry.create_dataset(KIND, data=[kind], dtype=TEXT)
            if len(parameters):
                entry.create_dataset(FIXED, data=fixed)
                entry.create_dataset(PARAMETERS, data=parameters)


def read_hdf5(path: Path) -> Iterator[Part]:
    """The transforms of a file, in its order.

    Raises:
        OSError: when it is no whole HDF5 file.
        KeyError: when it is no transform.
        ValueError: when it holds less than it says.
    """
    _check_heaps(path)
    with h5py.File(path) as file:
        file.visititems(partial(_check_size, file=path))
        for number in range(len(file[GROUP])):
            entry = file[GROUP][str(number)]
            yield entry[KIND][0].decode(), _numbers(entry, PARAMETERS), _numbers(entry, FIXED)


def _numbers(entry: h5py.Group, name: str) -> Any:
    """Numbers of a transform, which ITK 4 calls otherwise."""
    found = entry.get(name, entry.get(name.replace("Transform", "Tranform")))
    return np.zeros(0) if found is None else found[()]


def _check_heaps(path: Path) -> None:
    """Raise ValueError where texts lie in a heap whose parts don't lead to its end: HDF5 would look for it for ever."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        begin = content.find(HEAP)
        while begin >= 0:
            end, place = begin + int.from_bytes(content[begin + 8 : begin + 16], "little"), begin + 16
            while place + 16 <= min(end, len(content)):
                length = int.from_bytes(content[place + 8 : place + 16], "little")
                is_free = content[place : place + 2] == bytes(2)
                step = length if is_free else 16 + -(-length // 8) * 8
                if step < 16 or place + step > end:
                    raise ValueError("its heap of texts is damaged")
                place += step
            begin = content.find(HEAP, begin + len(HEAP))


def _check_size(name: str, item: Any, file: Path) -> None:
    """Raise ValueError where an array is larger than its file can hold, as one that was announced and never written."""
    if isinstance(item, h5py.Dataset) and item.size:
        check_room(item.shape or (1,), item.dtype.itemsize, file, SMALL, DEFLATED)
