"""Whether the elements of a DICOM file fit into it: GDCM makes room for whatever length one states."""

from __future__ import annotations

import io
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
SHORT = {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO"}
SHORT |= {b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END, PIXELS = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x7FE00010
IMPLICIT, DEFLATED, BIG = (f"1.2.840.10008.1.2{end}" for end in ("", ".1.99", ".2"))
DEEPEST = 20  # sequences within sequences


@dataclass(frozen=True)
class _Element:
    tag: int
    kind: bytes
    length: int


def is_dicom(file: Path) -> bool:
    """Whether it begins as DICOM files do."""
    with file.open("rb") as stored:
        return stored.read(132)[128:] == b"DICM"


def check_elements(file: Path) -> bool:
    """Go through a DICOM file from element to element.

    Returns:
        whether it has pixels.

    Raises:
        ValueError: when an element is longer than what is left of the file, or none can be made out.
    """
    size = file.stat().st_size
    with file.open("rb") as stored:
        stored.seek(132)
        syntax = ""
        while stored.tell() < size and stored.read(2) == b"\x02\x00":
            stored.seek(-2, os.SEEK_CUR)
            element = _next(stored, False, "little")
            _fits(element, stored.tell() + element.length, size)
            value = stored.read(element.length)
            if element.tag == 0x00020010:
                syntax = value.decode("ascii", "replace").strip("\0 ")
        stored.seek(-2, os.SEEK_CUR)
        content: BinaryIO = stored
        if syntax == DEFLATED:
            content = io.BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored.read()))
            size = len(content.getbuffer())
        return _Walk(content, syntax == IMPLICIT, "big" if syntax == BIG else "little").elements(size, 0)


class _Walk:
    def __init__(self, stored: BinaryIO, implicit: bool, order: str) -> None:
        self.stored, self.implicit, self.order = stored, implicit, order

    def elements(self, end: int, depth: int, until: int | None = None) -> bool:
        """Pass elements up to a position, or a tag; whether pixels were among them."""
        if depth > DEEPEST:
            raise ValueError(f"its sequences lie more than {DEEPEST} deep")
        pixels = False
        while self.stored.tell() < end:
            element = _next(self.stored, self.implicit, self.order)
            if element.tag == until:
                return pixels
            begin = self.stored.tell()
            if element.length == UNDEFINED:
                nested = _Walk(self.stored, True, "little") if element.kind == b"UN" else self  # as the standard has it
                nested.items(end, depth, fragments=element.tag == PIXELS)
            else:
                _fits(element, begin + element.length, end)
                if element.kind == b"SQ" or (self.implicit and _is_sequence(element.tag)):
                    self.items(begin + element.length, depth)
                self.stored.seek(begin + element.length)
            pixels |= element.tag == PIXELS and element.length > 0
            if pixels and depth == 0 and end - self.stored.tell() < 8:  # filled up to some size
                return True
        if until is not None:
            raise ValueError("it ends within a sequence")
        return pixels

    def items(self, end: int, depth: int, fragments: bool = False) -> None:
        """Pass the items of a sequence, or the fragments of compressed pixels."""
        while self.stored.tell() < end:
            item = _next(self.stored, True, self.order)
            if item.tag == SEQUENCE_END:
                return
            if item.tag != ITEM:
                raise ValueError(f"a sequence holds an element {item.tag:08x} in place of an item")
            begin = self.stored.tell()
            if item.length == UNDEFINED and not fragments:
                self.elements(end, depth + 1, ITEM_END)
                continue
            _fits(item, begin + item.length, end)
            if not fragments:
                self.elements(begin + item.length, depth + 1)
            self.stored.seek(begin + item.length)


def _next(stored: BinaryIO, implicit: bool, order: str) -> _Element:
    """The next element's tag, kind and length."""
    head = stored.read(8)
    if len(head) < 8:
        raise ValueError("it ends within an element")
    group, number = (int.from_bytes(head[i : i + 2], order) for i in (0, 2))  # type: ignore[arg-type]
    tag, kind = group << 16 | number, head[4:6]
    if implicit or group == ITEM >> 16:
        return _Element(tag, b"", int.from_bytes(head[4:8], order))  # type: ignore[arg-type]
    if kind in LONG:
        return _Element(tag, kind, int.from_bytes(stored.read(4), order))  # type: ignore[arg-type]
    if kind not in SHORT:
        raise ValueError(f"its element {tag:08x} is of a kind {kind!r} that DICOM doesn't know")
    return _Element(tag, kind, int.from_bytes(head[6:8], order))  # type: ignore[arg-type]


def _fits(element: _Element, end: int, limit: int) -> None:
    if end > limit:
        raise ValueError(f"its element {element.tag:08x} of {element.length} bytes is cut off")


def _is_sequence(tag: int) -> bool:
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    return dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ"
