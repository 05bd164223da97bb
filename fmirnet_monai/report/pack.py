"""Volumes small enough for a page: tiles of 8-bit pictures that a browser's own decoders read."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 4096  # pixels of a picture of many slices
LOSSLESS = 1_500_000  # pixels of the images together, up to which they are kept as they are
QUALITIES = (90, 80, 70, 60, 50, 40, 32, 25, 20, 15, 10, 5, 0)  # of WebP
SAMPLE = 8  # slices that a quality is tried on
CODES = (0, 16, 240, 255)  # of the values that an image's scale goes through

Shape = Sequence[int]


def factors(shape: Shape, longest: int) -> tuple[int, ...]:
    """By how many times each axis is to be coarser so that none is longer than ``longest``."""
    return tuple(math.ceil(n / longest) for n in shape)


def coarser(volume: NDArray, by: Shape, how: str = "mean") -> NDArray:
    """A volume with one voxel for each block: its ``mean``, its largest value (``max``) or its first one (``first``).

    A last block that is not whole is filled up with its outermost values.
    """
    if all(f == 1 for f in by):
        return volume
    if how == "first":
        return volume[tuple(slice(None, None, f) for f in by)]
    whole = np.pad(volume, [(0, -n % f) for n, f in zip(volume.shape, by, strict=True)], mode="edge")
    for axis, factor in enumerate(by):  # one axis at a time, each less to do than the one before
        split = whole.reshape(*whole.shape[:axis], -1, factor, *whole.shape[axis + 1 :])
        whole = split.max(axis + 1) if how == "max" else split.mean(axis + 1, dtype=np.float32)
    return whole


class Scale:
    """An image's intensities in 8 bits: most of them between its 0.5th and 99.5th percentile, a few for what is beyond.

    Attributes:
        values: at :py:data:`CODES`.
    """

    def __init__(self, image: NDArray) -> None:
        low, high = (float(value) for value in np.percentile(image, (0.5, 99.5)))
        self.values = (float(image.min()), low, max(high, low + 1e-12), float(image.max()))

    def encode(self, volume: NDArray) -> NDArray[np.uint8]:
        """Codes of a volume's intensities."""
        return np.rint(np.interp(volume, self.values, CODES)).astype(np.uint8)

    def unit(self, volume: NDArray) -> NDArray[np.float64]:
        """To [0, 1] between the percentiles, clipped."""
        low, high = self.values[1:3]
        return np.clip((np.asarray(volume, dtype=np.float64) - low) / (high - low), 0, 1)


def pack(volume: NDArray[np.uint8], by: Shape, quality: int | None = None) -> dict[str, Any]:
    """A volume ``(Z, Y, X)`` as pictures of many slices each, for ``volume.js``.

    Args:
        volume: codes.
        by: voxels of the image along each side of one of its own.
        quality: of WebP, 0 to 100; None keeps it as it is, as PNG.

    Returns:
        ``shape``, ``factor``, the axis across the slices first in ``order``, slices in a row (``columns``) and in a
        picture (``tiles``), and the ``pictures``, data URIs.
    """
    tiles, order = _tiles(volume)
    count, height, width = tiles.shape
    columns = max(1, min(count, SIDE // width))
    rows = max(1, min(math.ceil(count / columns), SIDE // height))
    each = columns * rows
    pictures = [_picture(tiles[i : i + each], columns, quality) for i in range(0, count, each)]
    return {
        "shape": list(volume.shape),
        "factor": list(by),
        "order": order,
        "columns": columns,
        "tiles": each,
        "pictures": [f"data:image/{kind};base64,{base64.b64encode(data).decode()}" for kind, data in pictures],
    }


def weight(packed: Mapping[str, Any]) -> int:
    """Bytes of a packed volume."""
    return sum(map(len, packed["pictures"]))


def choose_quality(volumes: Sequence[NDArray[np.uint8]], room: int) -> int | None:
    """The best quality at which volumes are likely to fit into so many bytes; None for without loss."""
    pixels = sum(volume.size for volume in volumes)
    if pixels <= LOSSLESS:
        return None
    for quality in QUALITIES:
        size = 0.0
        for volume in volumes:
            tiles, _ = _tiles(volume)
            some = tiles[:: math.ceil(len(tiles) / SAMPLE)]
            size += len(_picture(some, 1, quality)[1]) * len(tiles) / len(some)
        if size * 4 / 3 < room:
            return quality
    return QUALITIES[-1]


def _tiles(volume: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], list[int]]:
    """Slices across the shortest axis, and the order of the axes."""
    across = int(np.argmin(volume.shape))
    order = [across, *(axis for axis in range(3) if axis != across)]
    return volume.transpose(order), order


def _picture(tiles: NDArray[np.uint8], columns: int, quality: int | None) -> tuple[str, bytes]:
    count, height, width = tiles.shape
    rows = math.ceil(count / columns)
    whole = np.zeros((rows * columns, height, width), dtype=np.uint8)
    whole[:count] = tiles
    sheet = whole.reshape(rows, columns, height, width).transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(sheet))
    if quality is None:
        picture.save(buffer, format="PNG", compress_level=6)
        return "png", buffer.getvalue()
    picture.save(buffer, format="WEBP", quality=quality, method=2)
    return "webp", buffer.getvalue()
