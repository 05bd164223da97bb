"""Which way up an image is shown, and through which of its voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fmirnet_monai.spatial import Grid

NAMES = ("sagittal", "coronal", "axial")  # by the RAS+ axis across them
ENDS = ("RL", "AP", "SI")  # per RAS+ axis, the side of its positive end first
ACROSS = ((0, 1, 2), (1, 0, 2), (2, 0, 1))  # axes of a displayed volume: across a plane, down its rows, along them


@dataclass(frozen=True)
class Plane:
    """The slices of one direction.

    Attributes:
        name: ``axial``, ``coronal`` or ``sagittal``; ``image`` of a 2-D image, ``axis N`` where nobody knows.
        across: axis of the displayed volume ``(Z, Y, X)`` across the slices; the next two go down and to the right.
        rows: that which goes down.
        columns: that which goes to the right.
        start: the slice that is shown first.
        reversed: whether the file numbers the slices the other way round.
        edges: letters of the left, right, top and bottom edge, empty where nobody knows.
        ends: letters of a positive and a negative place along the axis across, empty where nobody knows.
        first: place of the first slice along it in mm.
        step: from each slice to the next.
    """

    name: str
    across: int
    rows: int
    columns: int
    start: int
    reversed: bool
    edges: str
    ends: str
    first: float
    step: float


@dataclass(frozen=True)
class Display:
    """An image as ``(Z, Y, X)``: each axis runs against the RAS+ axis nearest to it (radiological display).

    Axial pictures ``(Y, X)`` so have the patient's right on the left and anterior up, coronal ones ``(Z, X)`` right on
    the left and superior up, sagittal ones ``(Z, Y)`` anterior on the left and superior up. Z of a 2-D image is 1.

    Attributes:
        grid: of the image.
        oriented: whether it is known where the patient's sides are.
    """

    grid: Grid
    oriented: bool = True

    @cached_property
    def axes(self) -> tuple[int, ...]:
        """Array axis of each displayed one; a 2-D image has two."""
        world = [int(axis) for axis in nib.io_orientation(self.grid.affine)[:, 0]]
        return tuple(world.index(axis) for axis in reversed(range(self.grid.dims)))

    @cached_property
    def flips(self) -> tuple[bool, ...]:
        """Whether each displayed axis runs backwards along its array axis."""
        signs = nib.io_orientation(self.grid.affine)[:, 1]
        return tuple(bool(signs[axis] > 0) for axis in self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along Z, Y and X."""
        return (*[1] * (3 - self.grid.dims), *(self.grid.shape[axis] for axis in self.axes))

    @property
    def spacing(self) -> tuple[float, ...]:
        """Along Z, Y and X."""
        return (*[1.0] * (3 - self.grid.dims), *(float(self.grid.spacing[axis]) for axis in self.axes))

    def take(self, array: ArrayLike) -> NDArray:
        """``(*spatial)`` to ``(Z, Y, X)``, a view."""
        values = np.asarray(array).transpose(self.axes)
        values = values[tuple(slice(None, None, -1 if back else 1) for back in self.flips)]
        return values.reshape(self.shape)

    def place(self, points: ArrayLike) -> NDArray[np.float64]:
        """Points ``(N, D)`` in RAS+ mm to displayed voxels ``(N, 3)``: z, y, x."""
        return self._voxels(self.grid.to_voxel(np.asarray(points, dtype=float)))

    def vectors(self, ddf: ArrayLike, step: Sequence[int] = (1, 1, 1)) -> NDArray:
        """A displacement field ``(D, *spatial)`` in voxels to one ``(3, Z, Y, X)`` along the displayed axes.

        Args:
            ddf: the field.
            step: of voxels along Z, Y and X, the first of each of which is taken.
        """
        field, some = np.asarray(ddf), tuple(slice(None, None, n) for n in step)
        found = [
            (-1 if back else 1) * self.take(field[axis])[some] for axis, back in zip(self.axes, self.flips, strict=True)
        ]
        return np.stack([np.zeros_like(found[0])] * (3 - self.grid.dims) + found)

    def planes(self, voxel: ArrayLike) -> list[Plane]:
        """Axial, coronal and sagittal slices through a voxel; one plane of a 2-D image or a volume of one slice."""
        at = np.rint(self._voxels(np.asarray(voxel, dtype=float)[None])[0]).astype(int)
        if self.grid.dims == 2:
            return [Plane("image", 0, 1, 2, 0, False, "", "", 0.0, 1.0)]
        single = [axis for axis in range(3) if self.shape[axis] == 1]
        return [self._plane(axes, int(at[axes[0]])) for axes in ACROSS if not single or axes[0] == single[0]]

    def _plane(self, axes: tuple[int, int, int], start: int) -> Plane:
        across, rows, columns = axes
        back = self.flips[across]
        if not self.oriented:
            return Plane(f"axis {self.axes[across] + 1}", across, rows, columns, start, back, "", "", 0.0, 1.0)
        world, middle = 2 - across, (np.array(self.grid.shape) - 1) / 2
        places = []
        for index in (0, 1):
            middle[self.axes[across]] = self.shape[across] - 1 - index if back else index
            places.append(float(self.grid.to_world(middle)[world]))
        edges = ENDS[2 - columns] + ENDS[2 - rows]
        return Plane(
            NAMES[world], across, rows, columns, start, back, edges, ENDS[world], places[0], places[1] - places[0]
        )

    def _voxels(self, voxels: NDArray) -> NDArray[np.float64]:
        found = np.zeros((len(voxels), 3))
        for k, (axis, back) in enumerate(zip(self.axes, self.flips, strict=True), start=3 - self.grid.dims):
            found[:, k] = self.grid.shape[axis] - 1 - voxels[:, axis] if back else voxels[:, axis]
        return found


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
