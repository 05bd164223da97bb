"""Volumes as networks know them: array axes that run to the left, to the back and to the head (LPS)."""

from __future__ import annotations

from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from fmirnet_monai.spatial import DisplacementField, Grid, resize_field


def oriented(grid: Grid, codes: str = "LPS") -> Grid:
    """The grid of the same voxels with its axes in another order, each along the direction of its letter."""
    change = ornt_transform(io_orientation(grid.affine), axcodes2ornt(codes))
    shape = tuple(grid.shape[int(axis)] for axis in change[:, 0].argsort())
    return Grid(shape, grid.affine @ inv_ornt_aff(change, grid.shape))


def on_extent(field: DisplacementField, grid: Grid) -> DisplacementField:
    """A field on a grid of the same extent, whose axes may have another order, direction and number of voxels."""
    if field.grid.matches(grid):
        return field
    change = ornt_transform(io_orientation(field.grid.affine), io_orientation(grid.affine))
    order = [int(axis) for axis in change[:, 0].argsort()]
    backwards = [axis for axis, old in enumerate(order) if change[old, 1] < 0]
    ddf = field.ddf[order].permute(0, *(axis + 1 for axis in order))
    signs = ddf.new_tensor([-1.0 if axis in backwards else 1.0 for axis in range(len(order))])
    turned = (ddf * signs.reshape(-1, *[1] * len(order))).flip([axis + 1 for axis in backwards])
    return DisplacementField(resize_field(turned[None], grid.shape)[0], grid)
