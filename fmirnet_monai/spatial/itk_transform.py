"""Transforms of ITK in memory, as maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .files import from_itk
from .geometry import flip, set_geometry
from .grid import Grid
from .maps import Affine, Map, Mapped, chain


def flip_lps(points: ArrayLike) -> NDArray[np.float64]:
    """Positions ``(..., D)`` in mm from RAS+ to LPS or back."""
    return np.asarray(points, dtype=np.float64) @ flip(np.shape(points)[-1])


@dataclass(frozen=True, eq=False)
class ItkTransform(Map):
    """A transform of ITK that is neither affine nor a displacement field, such as B-splines.

    ITK knows no map of many points at once: on a grid it is fast, for single points it takes some microseconds each. It
    is taken to be known everywhere, as ITK does; B-splines move nothing beyond their control points.

    Attributes:
        transform: of ITK, in double precision.
    """

    transform: Any

    @property
    def dims(self) -> int:
        return int(self.transform.GetInputSpaceDimension())

    def __call__(self, points: Tensor) -> Mapped:
        places = flip_lps(points.cpu().double().reshape(-1, self.dims).numpy())
        moved = flip_lps(
            np.array([list(self.transform.TransformPoint(p)) for p in places.tolist()]).reshape(-1, self.dims)
        )
        inside = torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)
        return torch.from_numpy(moved.copy()).to(points).reshape(points.shape), inside

    def at(self, grid: Grid, slab: slice = slice(None), like: Tensor | None = None) -> Mapped:
        import itk

        begin, end, _ = slab.indices(grid.shape[0])
        affine = grid.affine.copy()
        affine[:-1, -1] = grid.to_world(np.array([begin, *[0] * (grid.dims - 1)]))
        part = Grid((end - begin, *grid.shape[1:]), affine)
        sampler = itk.TransformToDisplacementFieldFilter[
            itk.Image[itk.Vector[itk.F, grid.dims], grid.dims], itk.D
        ].New()
        sampler.SetTransform(self.transform)
        sampler.UseReferenceImageOn()
        reference = itk.Image[itk.UC, grid.dims].New(Regions=list(part.shape))
        set_geometry(reference, part)
        sampler.SetReferenceImage(reference)
        sampler.Update()
        vectors = np.moveaxis(itk.array_view_from_image(sampler.GetOutput()), range(grid.dims), range(grid.dims)[::-1])
        points = grid.to_world(grid.indices(slab, like))
        moved = points + torch.from_numpy(flip_lps(vectors)).to(points)
        return moved, torch.ones(moved.shape[:-1], dtype=torch.bool, device=moved.device)

    def inverse(self) -> Map:
        """ITK's own inverse; ValueError where it has none."""
        back = self.transform.GetInverseTransform()
        if back is None:
            name = type(self.transform).__name__.removeprefix("itk")
            raise ValueError(f"{name} has no inverse of its own; make it a field first: compose it onto a reference.")
        return from_itk_transform(back)


def from_itk_transform(transform: Any) -> Map:
    """A transform of ITK as a map: an affine one stays affine, a composite becomes a chain."""
    if hasattr(transform, "GetNumberOfTransforms"):
        import itk

        inner = [transform.GetNthTransform(i) for i in range(transform.GetNumberOfTransforms())]
        return chain(from_itk_transform(itk.down_cast(part)) for part in inner[::-1])  # the last one is applied first
    if transform.IsLinear():
        return _affine(transform)
    if hasattr(transform, "GetDisplacementField"):
        return from_itk(transform.GetDisplacementField())
    return ItkTransform(transform)


def _affine(transform: Any) -> Affine:
    """The matrix in RAS+ mm: where it takes the origin and the unit vectors."""
    dims = transform.GetInputSpaceDimension()
    probes = np.concatenate([np.zeros((1, dims)), np.eye(dims)])
    images = flip_lps([list(transform.TransformPoint(probe.tolist())) for probe in flip_lps(probes)])
    matrix = np.eye(dims + 1)
    matrix[:-1, -1] = images[0]
    matrix[:-1, :-1] = (images[1:] - images[0]).T
    return Affine(matrix)
