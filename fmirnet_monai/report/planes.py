"""Which slices of an image are shown, which way up, and how they become pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from contourpy import contour_generator
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from fmirnet_monai.spatial import Grid

WIDEST = 500  # pixels of a picture
NAMES = ("sagittal", "coronal", "axial")  # by the RAS+ axis across them
ENDS = ("RL", "AP", "SI")  # per RAS+ axis, the side of its positive end first
SLAB = 3.0  # landmarks so many of the finest voxel's sides from a slice are shown on it


@dataclass(frozen=True)
class Plane:
    """A slice as a picture: rows go down and columns to the right against the RAS+ axes (radiological display).

    Axial pictures so have the patient's right on the left and anterior up, coronal ones right on the left and superior
    up, sagittal ones anterior on the left and superior up.

    Attributes:
        grid: of the image.
        axis: array axis across the slice, None for a 2-D image.
        index: of the slice along it.
        rows: array axis that goes down.
        columns: array axis that goes to the right.
        world: RAS+ axis nearest to each array axis.
        flips: whether each array axis is shown backwards.
    """

    grid: Grid
    axis: int | None
    index: int
    rows: int
    columns: int
    world: tuple[int, ...]
    flips: tuple[bool, ...]

    @property
    def name(self) -> str:
        """Of its orientation; a 2-D image has none."""
        return "image" if self.axis is None else NAMES[self.world[self.axis]]

    @property
    def title(self) -> str:
        """Name, number of the slice and its place in mm."""
        if self.axis is None:
            return "Image"
        centre = (np.array(self.grid.shape) - 1) / 2
        centre[self.axis] = self.index
        axis = self.world[self.axis]
        place = self.grid.to_world(centre[None])[0, axis]
        side = ENDS[axis][int(place < 0)]
        number = f"slice {self.index + 1} of {self.grid.shape[self.axis]}"
        return f"{self.name.capitalize()}, {number}, {side} {abs(place):.0f} mm"

    @property
    def edges(self) -> str:
        """Letters of the left, right, top and bottom edge; none for a 2-D image, whose plane nobody knows."""
        return "" if self.axis is None else ENDS[self.world[self.columns]] + ENDS[self.world[self.rows]]

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height in mm."""
        width, height = (self.grid.shape[i] * self.grid.spacing[i] for i in (self.columns, self.rows))
        return float(width), float(height)

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height of the picture in square pixels of the finer spacing, or larger ones to limit its size."""
        size = max(*self.extent) / WIDEST
        size = max(size, min(self.grid.spacing[self.rows], self.grid.spacing[self.columns]))
        width, height = (max(1, round(length / size)) for length in self.extent)
        return width, height

    def slice_grid(self) -> Grid:
        """Grid of this slice alone, with one voxel across it."""
        if self.axis is None:
            return self.grid
        shape = [1 if i == self.axis else n for i, n in enumerate(self.grid.shape)]
        affine = self.grid.affine.copy()
        affine[:-1, -1] += self.index * affine[:-1, self.axis]
        return Grid(tuple(shape), affine)

    def take(self, array: ArrayLike) -> NDArray:
        """``(*spatial)``, of the whole image or of this slice alone, to ``(rows, columns)`` as shown."""
        values = np.asarray(array)
        if self.axis is not None:
            values = values.take(self.index if values.shape[self.axis] > 1 else 0, axis=self.axis)
        if self.rows > self.columns:
            values = values.T
        return values[:: -1 if self.flips[self.rows] else 1, :: -1 if self.flips[self.columns] else 1]

    def place(self, voxels: ArrayLike) -> NDArray[np.float64]:
        """Voxel positions ``(..., D)`` to mm from the picture's left and top edges, ``(..., 2)``."""
        found = []
        for axis in (self.columns, self.rows):
            along = np.asarray(voxels, dtype=float)[..., axis]
            found.append(
                ((self.grid.shape[axis] - 1 - along if self.flips[axis] else along) + 0.5) * self.grid.spacing[axis]
            )
        return np.stack(found, axis=-1)

    def near(self, points: NDArray) -> NDArray[np.float64]:
        """Place ``(M, 2)`` of those points ``(N, D)`` in RAS+ mm that lie on the slice or a few voxels from it."""
        voxels = self.grid.to_voxel(points)
        if self.axis is not None:
            spacing = self.grid.spacing[self.axis]
            near = max(SLAB * self.grid.spacing.min(), spacing / 2)
            voxels = voxels[np.abs(voxels[:, self.axis] - self.index) * spacing <= near]
        return self.place(voxels)

    def outlines(self, label: NDArray) -> list[NDArray[np.float64]]:
        """Outlines of every label of a map ``(rows, columns)`` in mm of the picture, ``(N, 2)`` each."""
        width, height = self.extent
        step = np.array([width / label.shape[1], height / label.shape[0]])
        padded = np.pad(label, 1)
        lines: list[NDArray[np.float64]] = []
        for value in np.unique(label[label != 0]):
            found = contour_generator(z=(padded == value).astype(float)).lines(0.5)
            lines += [(np.asarray(line) - 0.5) * step for line in found]
        return lines


def choose_planes(grid: Grid, through: Sequence[int]) -> list[Plane]:
    """Axial, coronal and sagittal slice through a voxel; one for a 2-D image or a volume of one slice."""
    orientation = nib.io_orientation(grid.affine)
    world = tuple(int(axis) for axis in orientation[:, 0])
    flips = tuple(bool(sign > 0) for sign in orientation[:, 1])
    if grid.dims == 2:
        return [Plane(grid, None, 0, world.index(1), world.index(0), world, flips)]
    single = [axis for axis, size in enumerate(grid.shape) if size == 1]
    planes = []
    for across, (right, down) in ((2, (0, 1)), (1, (0, 2)), (0, (1, 2))):
        axis = world.index(across)
        if not single or axis == single[0]:
            planes.append(Plane(grid, axis, int(through[axis]), world.index(down), world.index(right), world, flips))
    return planes


def choose_voxel(label: NDArray | None, distance: NDArray, image: NDArray) -> tuple[int, ...]:
    """The voxel to cut through: the label's middle, or the largest displacement, or the middle of the image.

    Args:
        label: ``(*spatial)``, or None.
        distance: length of the displacement, ``(*spatial)``.
        image: ``(*spatial)``; the displacement of its dark parts and of its rim, an eighth wide, doesn't count.
    """
    if label is not None and label.any():
        # of each axis the median, where there is some label even when it is a ring
        return tuple(int(np.sort(where)[len(where) // 2]) for where in np.nonzero(label))
    inner = tuple(slice(n // 8, n - n // 8) for n in distance.shape)
    shown = np.zeros_like(distance)
    shown[inner] = (distance * (image > image.mean()))[inner]
    if np.ptp(distance) > 1e-3 and shown.any():
        return tuple(int(i) for i in np.unravel_index(shown.argmax(), shown.shape))
    return tuple(n // 2 for n in distance.shape)


def obliqueness(grid: Grid) -> float:
    """Largest angle in degrees between an array axis and the RAS+ axis nearest to it."""
    directions = grid.affine[:-1, :-1] / grid.spacing
    axes = nib.io_orientation(grid.affine)[:, 0].astype(int)
    cosines = np.abs(directions[axes, np.arange(grid.dims)])
    return float(np.degrees(np.arccos(np.clip(cosines.min(), -1, 1))))


def resized(values: NDArray, plane: Plane, smooth: bool) -> NDArray[np.float32]:
    """``(rows, columns)`` to the picture's size; else than smooth a voxel stays a block of one value."""
    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.BOX
    picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(picture.resize(plane.pixels, method))


def png_uri(pixels: NDArray[np.uint8]) -> str:
    """Grey ``(H, W)`` or RGB ``(H, W, 3)`` to a PNG in a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
