"""Jacobian determinants of a displacement field: the smooth estimate and the digital (exact) one."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from .field import identity_grid

SMALLEST = 1e-9  # a determinant below it counts as this where its logarithm is taken


def _determinant(columns: list[Tensor]) -> Tensor:
    """Determinant of the D x D matrices whose columns are the given ``(B, D, *spatial)`` vectors, D = 2 or 3."""
    if len(columns) == 2:
        a, b = columns
        return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    # torch.linalg.cross takes three times as long, back and forth, since the vectors lie scattered
    (a0, a1, a2), (b0, b1, b2), (c0, c1, c2) = (column.unbind(1) for column in columns)
    return a0 * (b1 * c2 - b2 * c1) + a1 * (b2 * c0 - b0 * c2) + a2 * (b0 * c1 - b1 * c0)


def jacobian_determinant(ddf: Tensor) -> Tensor:
    """Jacobian determinant of ``x -> x + ddf(x)`` by central differences (one-sided at the border).

    The determinant is the same in voxels and in mm. Values <= 0 mean folding, though central differences miss
    some of it: see :py:func:`digital_jacobian_determinants`.

    Args:
        ddf: ``(B, D, *spatial)`` in voxels, D = 2 or 3, at least 2 voxels along each axis.

    Returns:
        ``(B, *spatial)``.
    """
    points = identity_grid(ddf) + ddf
    dims = ddf.shape[1]
    return _determinant([torch.gradient(points, dim=2 + i)[0] for i in range(dims)])


def digital_jacobian_determinants(ddf: Tensor) -> Tensor:
    """Determinants of all simplices of both tessellations of each grid cell.

    A field interpolated linearly on simplices is invertible exactly when all of them are positive: per cell four
    triangles in 2-D, and in 3-D the eight corner tetrahedra and the two that remain in the middle (Liu et al., "On
    finite difference Jacobian computation in deformable image registration", IJCV 2024).

    Args:
        ddf: ``(B, D, *spatial)`` in voxels, D = 2 or 3.

    Returns:
        ``(B, 4, *(spatial - 1))`` in 2-D, ``(B, 10, *(spatial - 1))`` in 3-D: D! times the signed volume of each
        simplex in voxels, so 1 for an undeformed corner simplex and 2 for an undeformed middle tetrahedron.
    """
    dims = ddf.shape[1]
    points = identity_grid(ddf) + ddf
    edges = [points.diff(dim=2 + axis) for axis in range(dims)]

    def at(vectors: Tensor, corner: tuple[int, ...], along: int | None = None) -> Tensor:
        """Of each cell the vector at a corner, or on the edge there along an axis."""
        sides = (slice(None) if axis == along else slice(c, c - 1 or None) for axis, c in enumerate(corner))
        return vectors[(slice(None), slice(None), *sides)]

    determinants = [
        _determinant([at(edges[axis], corner, axis) for axis in range(dims)]) for corner in product((0, 1), repeat=dims)
    ]
    if dims == 3:
        for first in ((0, 0, 0), (1, 1, 1)):
            origin = at(points, first)
            # the three corners diagonal to the first across its faces, ordered to give +2 when undeformed
            others = [tuple(f if i == axis else 1 - f for i, f in enumerate(first)) for axis in range(3)]
            sign = 1.0 if first == (0, 0, 0) else -1.0
            determinants.append(sign * _determinant([at(points, o) - origin for o in others]))
    return torch.stack(determinants, dim=1)
