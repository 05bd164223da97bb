"""Affine maps and displacement fields in ITK's HDF5 form of transforms (``.h5``).

Without ITK, for what it loads for a displacement field takes seconds and hundreds of megabytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .displacement import DisplacementField
from .files import from_lps, to_lps
from .geometry import flip, from_geometry, geometry
from .headers import DEFLATED, SMALL, check_room
from .maps import Affine, Map, chain
from .parameters import check_parameters

GROUP, KIND, PARAMETERS, FIXED = "TransformGroup", "TransformType", "TransformParameters", "TransformFixedParameters"
COMPOSITE, FIELD, MATRICES = "CompositeTransform", "DisplacementFieldTransform", ("AffineTransform", "MatrixOffset")
HEAP = b"GCOL\1\0\0\0"
TEXT = h5py.string_dtype("ascii")


def write_hdf5(parts: Sequence[Affine | DisplacementField], path: str | Path) -> None:
    """Write maps, the first applied first, as one transform: a composite unless it is a single affine one.

    Raises:
        ValueError: when the axes of a field's grid are not at right angles, which ITK can't express.
        OSError: when it can't be written.
    """
    dims = parts[0].dims
    composite = len(parts) > 1 or isinstance(parts[0], DisplacementField)
    with h5py.File(path, "w") as file:
        group = file.create_group(GROUP)
        if composite:
            _add(group, COMPOSITE, dims)
        for part in parts[::-1]:  # the last one is the first one applied
            if isinstance(part, Affine):
                matrix = flip(dims) @ part.matrix[:-1] @ np.diag([*np.diag(flip(dims)), 1.0])
                _add(group, MATRICES[0], dims, [*matrix[:, :-1].flat, *matrix[:, -1]], [0.0] * dims)
            else:
                origin, spacing, direction = geometry(part.grid)
                place = [*part.grid.shape, *origin, *spacing, *direction.flat]
                _add(group, FIELD, dims, to_lps(part).reshape(-1), place)


def _add(group: h5py.Group, kind: str, dims: int, parameters: Any = None, fixed: Any = None) -> None:
    entry = group.create_group(str(len(group)))
    entry.create_dataset(KIND, data=[f"{kind}_double_{dims}_{dims}"], dtype=TEXT)
    if parameters is not None:
        entry.create_dataset(FIXED, data=np.asarray(fixed, dtype=np.float64))
        entry.create_dataset(PARAMETERS, data=np.asarray(parameters))  # a field's in single precision


def read_hdf5(path: str | Path) -> Map | None:
    """Read a transform of ITK; None where it holds other kinds, which are ITK's to read.

    Raises:
        OSError: when it is no whole HDF5 file.
        KeyError: when it is no transform.
        ValueError: when its numbers don't fit together.
    """
    _check_heaps(Path(path))
    with h5py.File(path) as file:
        file.visititems(partial(_check_size, file=Path(path)))
        group = file[GROUP]
        entries = [group[str(i)] for i in range(len(group))]
        kinds = [entry[KIND][0].decode() for entry in entries]
        if len(kinds) > 1 and kinds[0].startswith(COMPOSITE):
            entries, kinds = entries[1:], kinds[1:]
        known = all(kind.startswith((FIELD, *MATRICES)) for kind in kinds)
        for entry, kind in zip(entries, kinds, strict=True):
            if not kind.startswith(FIELD) and PARAMETERS in entry:
                check_parameters(kind, entry[PARAMETERS], entry[FIXED])
        if not kinds or not known or any(PARAMETERS not in entry for entry in entries):  # ITK 4 spelt it otherwise
            return None
        return chain(_part(entry, kind) for entry, kind in zip(entries[::-1], kinds[::-1], strict=True))


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


def _part(entry: h5py.Group, kind: str) -> Affine | DisplacementField:
    dims = int(kind.rsplit("_", 1)[1])
    fixed, parameters = np.asarray(entry[FIXED]), np.asarray(entry[PARAMETERS])
    if kind.startswith(FIELD):
        size, origin, spacing, direction = np.split(fixed, [dims, 2 * dims, 3 * dims])
        shape = tuple(int(n) for n in size)
        grid = from_geometry(shape, origin, spacing, direction.reshape(dims, dims))
        return from_lps(parameters.reshape(*shape[::-1], dims), grid)
    return Affine(_matrix(parameters, fixed, dims))


def _matrix(parameters: NDArray, centre: NDArray, dims: int) -> NDArray[np.float64]:
    """In RAS+ mm, of a matrix and a translation about a centre in LPS."""
    found = np.eye(dims + 1)
    lps, turn = parameters[: dims**2].reshape(dims, dims), flip(dims)
    found[:-1, :-1] = turn @ lps @ turn
    found[:-1, -1] = turn @ (parameters[dims**2 :] + centre - lps @ centre)
    return found
