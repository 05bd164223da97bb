"""Volumes as networks know them: array axes that run to the left, to the back and to the head (LPS)."""

from __future__ import annotations

from dataclasses import dataclass

from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from torch import Tensor

from fmirnet_monai.spatial import Grid


@dataclass(frozen=True)
class Orientation:
    """How a volume's array axes become those of LPS order, and fields their own again.

    A network that has learnt where organs lie has to see a volume the way it saw those that it learnt from.

    Attributes:
        axes: of the volume, in the order that they get.
        flipped: of these, those that then run backwards, as numbers of the axes after reordering.
    """

    axes: tuple[int, ...]
    flipped: tuple[int, ...]

    @classmethod
    def of(cls, grid: Grid) -> Orientation:
        """What a volume on a grid of three axes needs."""
        change = ornt_transform(io_orientation(grid.affine), axcodes2ornt("LPS"))
        order = change[:, 0].astype(int)
        axes = tuple(int((order == axis).argmax()) for axis in range(len(order)))
        return cls(axes, tuple(new for new, old in enumerate(axes) if change[old, 1] < 0))

    def apply(self, image: Tensor) -> Tensor:
        """An image ``(B, C, *spatial)`` with axes in LPS order."""
        return image.permute(0, 1, *(axis + 2 for axis in self.axes)).flip([axis + 2 for axis in self.flipped])

    def undo(self, image: Tensor) -> Tensor:
        """The image ``(B, C, *spatial)`` on the volume's own axes again."""
        back = [self.axes.index(axis) + 2 for axis in range(len(self.axes))]
        return image.flip([axis + 2 for axis in self.flipped]).permute(0, 1, *back)

    def undo_field(self, ddf: Tensor) -> Tensor:
        """A field ``(B, D, *spatial)`` in voxels, found on axes in LPS order, on the volume's own axes."""
        signs = ddf.new_tensor([-1.0 if axis in self.flipped else 1.0 for axis in range(ddf.shape[1])])
        turned = ddf * signs.reshape(1, -1, *[1] * (ddf.dim() - 2))
        return self.undo(turned[:, [self.axes.index(axis) for axis in range(len(self.axes))]])
