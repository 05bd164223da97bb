"""Damage done to a file by a generator of random numbers: the same number gives the same damage again."""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pydicom
from numpy.random import Generator

HEAD = 512  # bytes that most headers fit into, where damage tells most
WHOLE = (0, -1, 1, 2, 5, 255, 256, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1)
REAL = (0.0, -1.0, 1e-30, 1e30, -1e30, 3.4e38, float("nan"), float("inf"), float("-inf"), 2.0**31)
WORDS = (
    "0",
    "-1",
    "1e400",
    "-1e308",
    "nan",
    "inf",
    "-inf",
    "",
    "2147483648",
    "99999999999999999999",
    "abc",
    "1" * 5000,
)
ODD = (b"\xff\xfe", b"\x00", b"\xc3\x28", b"\xef\xbb\xbf", b"\x1b[2J", b"\r", b"x" * 200_000)
WRONG = (None, True, [], {}, "", "abc", 0, -1, 1e308, 10**30, [1], {"a": None}, [[]], float("nan"), float("inf"))
DEEP = 100_000  # brackets within brackets
NIFTI_FIELDS = [*((offset, "h") for offset in (*range(40, 56, 2), 68, 70, 72, 252, 254)), (0, "i"), (123, "b")]
NIFTI_FIELDS += [(offset, "f") for offset in (*range(76, 120, 4), *range(256, 328, 4))]
MGH_FIELDS = [*((offset, ">i") for offset in range(0, 28, 4)), (28, ">h"), *((i, ">f") for i in range(30, 90, 4))]
TAGS = (
    *("Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("SamplesPerPixel", "PhotometricInterpretation", "ImagePositionPatient", "ImageOrientationPatient"),
    *("PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "SOPClassUID"),
    *("SeriesInstanceUID", "PixelData", "InstanceNumber", "SharedFunctionalGroupsSequence"),
)
Change = Callable[[bytes, Generator], bytes]


def mutate(data: bytes, form: str, random: Generator) -> bytes:
    """One file, damaged in one place or a few.

    Args:
        data: what the file holds.
        form: of it, one of :py:data:`FORMS`; a file that is whole in its own form but holds nonsense goes deeper into a
            reader than one of random bytes.
        random: decides.
    """
    for _ in range(int(random.choice([1, 1, 1, 2, 3]))):
        try:
            data = FORMS[form](data, random)
        except Exception:  # too damaged already to be changed in its own form
            data = _bytes(data, random)
    return data


def _place(data: bytes, random: Generator) -> int:
    """A position in the file, more often in its head."""
    reach = min(len(data), HEAD) if random.random() < 0.6 else len(data)
    return int(random.integers(reach)) if reach else 0


def _put(data: bytes, begin: int, new: bytes, old: int | None = None) -> bytes:
    return data[:begin] + new + data[begin + (len(new) if old is None else old) :]


def _flip(data: bytes, random: Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 17)) if data else 0):
        changed[_place(data, random)] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _fill(data: bytes, random: Generator) -> bytes:
    begin = _place(data, random)
    length = min(int(random.choice([1, 4, 16, 200])), len(data) - begin)
    return _put(data, begin, bytes([int(random.choice([0, 255]))]) * length)


def _cut(data: bytes, random: Generator) -> bytes:
    return data[: int(random.integers(len(data) + 1))]


def _double(data: bytes, random: Generator) -> bytes:
    begin, length = _place(data, random), int(random.choice([1, 8, 64, 1000]))
    return _put(data, begin, data[begin : begin + length] * 2, length)


def _insert(data: bytes, random: Generator) -> bytes:
    return _put(data, _place(data, random), random.bytes(int(random.integers(1, 64))), 0)


def _remove(data: bytes, random: Generator) -> bytes:
    return _put(data, _place(data, random), b"", int(random.choice([1, 4, 16, 300])))


def _number(data: bytes, random: Generator) -> bytes:
    code = str(random.choice([*"bhiqfd"]))
    size = struct.calcsize(code)
    return _put(data, _place(data, random) // size * size, _packed(str(random.choice(["<", ">"])) + code, random))


def _packed(code: str, random: Generator) -> bytes:
    """An extreme number as a word of a header."""
    if code[-1] in "fd":
        value = REAL[int(random.integers(len(REAL)))]
        return np.array(value).astype(np.dtype(code)).tobytes() if np.isfinite(value) else struct.pack(code, value)
    value = WHOLE[int(random.integers(len(WHOLE)))]
    size = struct.calcsize(code)
    return (value & (2 ** (8 * size) - 1)).to_bytes(size, "big" if code[0] == ">" else "little")


def _swap(data: bytes, random: Generator) -> bytes:
    size = int(random.choice([2, 4, 8]))
    begin = _place(data, random) // size * size
    return _put(data, begin, data[begin : begin + size][::-1])


def _bytes(data: bytes, random: Generator) -> bytes:
    ways: list[Change] = [_flip, _fill, _cut, _double, _insert, _remove, _number, _number, _swap]
    return ways[int(random.integers(len(ways)))](data, random)


def _fields(fields: list[tuple[int, str]]) -> Change:
    """Damage of a header whose fields are known."""

    def change(data: bytes, random: Generator) -> bytes:
        if random.random() < 0.4:
            return _bytes(data, random)
        offset, code = fields[int(random.integers(len(fields)))]
        return _put(data, offset, _packed(code if code[0] in "<>" else f"<{code}", random))

    return change


def _text(data: bytes, random: Generator) -> bytes:
    ways: list[Change] = [_new_number, _new_number, _new_number, _new_number, _lines, _lines, _lines, _odd, _other_word]
    ways += [_cut, _flip, _double, _remove]
    return ways[int(random.integers(len(ways)))](data, random)


def _new_number(data: bytes, random: Generator) -> bytes:
    found = list(re.finditer(rb"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?", data))
    if not found:
        return _odd(data, random)
    number = found[int(random.integers(len(found)))]
    return data[: number.start()] + WORDS[int(random.integers(len(WORDS)))].encode() + data[number.end() :]


def _lines(data: bytes, random: Generator) -> bytes:
    """A line away, twice, or in the place of another."""
    lines = data.split(b"\n")
    line, other = (int(random.integers(len(lines))) for _ in range(2))
    changed = [lines[:line] + lines[line + 1 :], lines[: line + 1] + lines[line:], lines[:line] + lines[other:]]
    return b"\n".join(changed[int(random.integers(3))])


def _odd(data: bytes, random: Generator) -> bytes:
    return _put(data, int(random.integers(len(data) + 1)), ODD[int(random.integers(len(ODD)))], 0)


def _other_word(data: bytes, random: Generator) -> bytes:
    found = list(re.finditer(rb"[^\s,=:;\"]+", data))
    if not found:
        return _odd(data, random)
    one, other = (found[int(random.integers(len(found)))] for _ in range(2))
    return data[: one.start()] + other[0] + data[one.end() :]


def _json(data: bytes, random: Generator) -> bytes:
    if random.random() < 0.3:
        return _text(data, random)
    content = json.loads(data)
    places: list[tuple[Any, Any]] = []

    def walk(item: Any) -> None:
        for key in item if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ():
            places.append((item, key))
            walk(item[key])

    walk(content)
    if not places or random.random() < 0.05:
        whole = [*map(json.dumps, WRONG), "[" * DEEP, '{"a":' * DEEP, "1" * 5000, "[" * 500 + "]" * 500]
        return whole[int(random.integers(len(whole)))].encode()
    holder, key = places[int(random.integers(len(places)))]
    way = random.random()
    if way < 0.2:
        del holder[key]
    elif way < 0.3 and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    elif way < 0.4 and isinstance(holder, list):
        holder.append(holder[key])
    else:
        holder[key] = WRONG[int(random.integers(len(WRONG)))]
    return json.dumps(content).encode()


def _headed(end: bytes) -> Change:
    """Damage of a text header that ends so, with data behind it."""

    def change(data: bytes, random: Generator) -> bytes:
        split = data.find(end)
        if split < 0 or random.random() < 0.3:
            return _bytes(data, random)
        split += len(end)
        return _text(data[:split], random) + data[split:]

    return change


def _gzip(inner: str) -> Change:
    """Damage of what is compressed, or of the compressed file."""

    def change(data: bytes, random: Generator) -> bytes:
        if random.random() < 0.3:
            return _bytes(data, random)
        content = FORMS[inner](gzip.decompress(data), random)
        if random.random() < 0.005:
            content += bytes(80 << 20)  # far more than the header says
        return gzip.compress(content, 1, mtime=0)

    return change


def _zip(data: bytes, random: Generator) -> bytes:
    if random.random() < 0.4:
        return _bytes(data, random)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = list(members)
    chosen = names[int(random.integers(len(names)))]
    if (way := random.random()) < 0.1:
        del members[chosen]
    elif way < 0.2:
        members[str(random.choice(["../x", "/x", "a/../../x", "a\\..\\x", "x" * 300]))] = members.pop(chosen)
    else:
        members[chosen] = _bytes(members[chosen], random)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return made.getvalue()


def _hdf5(data: bytes, random: Generator) -> bytes:
    if random.random() < 0.6:
        return _bytes(data, random)
    made = io.BytesIO(data)
    with h5py.File(made, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = names[int(random.integers(len(names)))]
        item, way = file[name], random.random()
        if way < 0.2 or isinstance(item, h5py.Group):
            del file[name]
            if way < 0.1:
                file.create_group(name)
            return _closed(file, made)
        values = np.asarray(item)
        if values.dtype.kind == "O":
            new: Any = [[b"CompositeTransform_double_3_3"], [b"Nonsense_double_x"], [b"\xff"], 3.0, [b""]][
                int(random.integers(5))
            ]
        else:
            new = values.copy().ravel()
            new[int(random.integers(len(new))) :: max(1, len(new))] = REAL[int(random.integers(len(REAL)))]
            if random.random() < 0.3:
                new = [new[:-1], np.r_[new, 1.0], np.zeros(0), new.astype("S8"), new[None]][int(random.integers(5))]
        del file[name]
        if random.random() < 0.1:  # announced, never written
            file.create_dataset(name, shape=(2**33,), dtype="f8", chunks=(2**20,))
        else:
            file[name] = new
        return _closed(file, made)


def _closed(file: h5py.File, made: io.BytesIO) -> bytes:
    file.close()
    return made.getvalue()


def _dicom(data: bytes, random: Generator) -> bytes:
    if random.random() < 0.5:
        return _bytes(data, random)
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    tag = TAGS[int(random.integers(len(TAGS)))]
    if random.random() < 0.3 and tag in dataset:
        delattr(dataset, tag)
    elif tag == "PixelData" or tag.endswith("Sequence"):
        if tag in dataset and tag == "PixelData":
            dataset.PixelData = dataset.PixelData[: int(random.integers(len(dataset.PixelData)))]
    else:
        values: list[Any] = [0, -1, 1, 3, 7, 65535, 10**9, "0", "-1", "nan", "1e30", "abc", "", [0, 0], ["0"] * 6, None]
        element = dataset.get(tag)
        value = values[int(random.integers(len(values)))]
        if isinstance(element, pydicom.multival.MultiValue) and random.random() < 0.7:
            value = [*element]
            value[int(random.integers(len(value)))] = float(random.choice([0.0, -1.0, 1e30, 1e-30, 0.5]))
        setattr(dataset, tag, value)
    made = io.BytesIO()
    dataset.save_as(made, enforce_file_format=False)
    return made.getvalue()


def _png(data: bytes, random: Generator) -> bytes:
    """A chunk changed with its checksum, or any byte."""
    if random.random() < 0.4:
        return _bytes(data, random)
    begin, chunks = 8, []
    while begin + 8 <= len(data):
        (length,) = struct.unpack(">I", data[begin : begin + 4])
        chunks.append((data[begin + 4 : begin + 8], data[begin + 8 : begin + 8 + length]))
        begin += 12 + length
    index = int(random.integers(len(chunks)))
    name, content = chunks[index]
    chunks[index] = name, _bytes(content, random)
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return data[:8] + b"".join(parts)


FORMS: dict[str, Change] = {
    "bytes": _bytes,
    "text": _text,
    "json": _json,
    "nifti": _fields(NIFTI_FIELDS),
    "nifti.gz": _gzip("nifti"),
    "mgh": _fields(MGH_FIELDS),
    "mgz": _gzip("mgh"),
    "metaimage": _headed(b"LOCAL\n"),
    "nrrd": _headed(b"\n\n"),
    "zip": _zip,
    "hdf5": _hdf5,
    "dicom": _dicom,
    "png": _png,
}
