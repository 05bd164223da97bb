"""Transforms of ITK as maps, and maps as the numbers that its files hold of them.

By ITK's core alone, and for most kinds without it: what its own readers of transforms load is half a gigabyte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .displacement import DisplacementField, Inverse
from .files import from_itk, from_lps, to_lps
from .geometry import flip, from_geometry, geometry
from .grid import Grid
from .maps import Affine, Map, Mapped, chain
from .parameters import Part, check_parameters

COMPOSITE, FIELD, SPLINE = "CompositeTransform", "DisplacementFieldTransform", "BSplineTransform"
AFFINE, MATRICES = "AffineTransform", ("AffineTransform", "MatrixOffsetTransformBase")
CUBIC = 3  # order of B-splines whose names in ITK's files state none
ORDERS = {"0": 0, "1": 1, "2": 2}  # that are stated
ROUNDING = 1e-9  # of a control point's spacing, by which a point may lie beyond where B-splines overlap


def flip_lps(points: ArrayLike) -> NDArray[np.float64]:
    """Positions ``(..., D)`` in mm from RAS+ to LPS or back."""
    return np.asarray(points, dtype=np.float64) @ flip(np.shape(points)[-1])


@dataclass(frozen=True, eq=False)
class Spline(Map):
    """``x -> x + s(x)``, ``s`` a sum of B-splines; where they don't overlap in full it moves nothing, as in ITK.

    Attributes:
        coefficients: ``(D, *grid.shape)`` in mm along RAS+ axes.
        grid: of the control points.
        order: of the B-splines, 0 to 3.
    """

    coefficients: NDArray[np.float64]
    grid: Grid
    order: int = CUBIC

    @property
    def dims(self) -> int:
        return self.grid.dims

    def __call__(self, points: Tensor) -> Mapped:
        from scipy.ndimage import map_coordinates

        voxels = self.grid.to_voxel(points.detach().cpu().double()).numpy()
        first = (self.order - 1) / 2
        last = np.array(self.grid.shape) - 1 - first
        moved = ((voxels >= first - ROUNDING) & (voxels <= last + ROUNDING)).all(-1)
        voxels = voxels.clip(first, last)
        shift = np.zeros_like(voxels)
        for axis, values in enumerate(self.coefficients):
            shift[moved, axis] = map_coordinates(
                values, voxels[moved].T, order=self.order, mode="nearest", prefilter=False
            )
        inside = torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)
        return points + torch.from_numpy(shift).to(points), inside

    def inverse(self) -> Map:
        """ValueError: it has none in closed form."""
        raise ValueError(f"{SPLINE} has no inverse of its own; make it a field first: compose it onto a reference.")


def from_itk_transform(transform: Any) -> Map:
    """A transform of ITK as a map: an affine one stays affine, a composite becomes a chain.

    Raises:
        ValueError: for one that is neither affine, nor a displacement field, nor B-splines.
    """
    import itk

    transform = itk.down_cast(transform)
    if hasattr(transform, "GetNumberOfTransforms"):
        inner = [transform.GetNthTransform(i) for i in range(transform.GetNumberOfTransforms())]
        return chain(from_itk_transform(part) for part in inner[::-1])  # the last one is applied first
    if transform.IsLinear():
        return _affine(transform)
    if hasattr(transform, "GetDisplacementField"):
        return from_itk(transform.GetDisplacementField())
    kind = transform.GetTransformTypeAsString()
    if not kind.startswith(SPLINE):
        raise ValueError(f"its {kind[:60]} is neither affine, a field nor B-splines; write its displacement field")
    parameters, fixed = (np.array(list(p)) for p in (transform.GetParameters(), transform.GetFixedParameters()))
    return from_part((kind, parameters, fixed))


def from_part(part: Part) -> Map:
    """What a file holds of one transform, as a map.

    Args:
        part: its kind as ITK names it, such as ``Euler3DTransform_double_3_3``, its parameters, and the fixed ones.

    Raises:
        ValueError: when ITK knows no such kind, or the numbers don't fit it.
    """
    kind, parameters, fixed = part
    name, _, *axes = kind.split("_")
    if len(axes) < 2 or axes[0] not in ("2", "3") or axes[1] != axes[0]:
        raise ValueError(f"ITK knows no {kind[:60]!r} of 2-D or 3-D images")
    dims = int(axes[0])
    if name.endswith(FIELD):
        grid = _placed(fixed, dims)
        return from_lps(np.asarray(parameters).reshape(*grid.shape[::-1], dims), grid)
    check_parameters(kind, parameters, fixed)
    parameters, fixed = np.asarray(parameters, np.float64), np.asarray(fixed, np.float64)
    if name in MATRICES and (len(parameters), len(fixed)) == (dims * (dims + 1), dims):
        return Affine(_matrix(parameters, fixed, dims))
    order = CUBIC if len(axes) == 2 else ORDERS.get("_".join(axes[2:]))
    if name == SPLINE and order is not None:
        grid = _placed(fixed, dims)
        values = parameters.reshape(dims, *grid.shape[::-1]).transpose(0, *range(dims, 0, -1))
        return Spline(np.tensordot(flip(dims), values, 1), grid, order)
    return from_itk_transform(_made(name, dims, parameters, fixed))


def to_part(found: Map) -> Part:
    """What a file holds of a map that is no chain; an inverse is sampled on its field's grid.

    Raises:
        ValueError: when the axes of a field's grid are not at right angles, which ITK can't express.
    """
    dims = found.dims
    if isinstance(found, Affine):
        lps = flip(dims) @ found.matrix[:-1] @ np.diag([*np.diag(flip(dims)), 1.0])
        return f"{AFFINE}_double_{dims}_{dims}", np.array([*lps[:, :-1].flat, *lps[:, -1]]), np.zeros(dims)
    if isinstance(found, Inverse):
        found = DisplacementField.of(found, found.field.grid)[0]
    if isinstance(found, DisplacementField):  # its vectors in single precision
        return f"{FIELD}_double_{dims}_{dims}", to_lps(found).reshape(-1), _place(found.grid)
    assert isinstance(found, Spline), found
    values = np.tensordot(flip(dims), found.coefficients, 1).transpose(0, *range(dims, 0, -1))
    order = "" if found.order == CUBIC else f"_{found.order}"
    return f"{SPLINE}_double_{dims}_{dims}{order}", values.reshape(-1), _place(found.grid)


def _place(grid: Grid) -> NDArray[np.float64]:
    origin, spacing, direction = geometry(grid)
    return np.array([*grid.shape, *origin, *spacing, *np.asarray(direction).flat], dtype=np.float64)


def _placed(fixed: ArrayLike, dims: int) -> Grid:
    size, origin, spacing, direction = np.split(np.asarray(fixed, np.float64), [dims, 2 * dims, 3 * dims])
    shape = tuple(int(n) for n in size)
    return from_geometry(shape, origin, spacing, direction.reshape(dims, dims))


def _made(name: str, dims: int, parameters: NDArray[np.float64], fixed: NDArray[np.float64]) -> Any:
    """ITK's own transform of these numbers."""
    import itk

    template: Any = getattr(itk, name, None) if name.endswith("Transform") else None
    known = [*template.keys()] if hasattr(template, "keys") else []
    kinds = [key for key in ((itk.D, dims), (itk.D,)) if key in known]
    if template is None or not kinds:
        raise ValueError(f"ITK knows no {name[:60]!r} of {dims} axes")
    transform = template[kinds[0]].New()
    if len(fixed):
        transform.SetFixedParameters(itk.OptimizerParameters[itk.D](fixed.tolist()))
    if len(parameters) != transform.GetNumberOfParameters() or transform.GetInputSpaceDimension() != dims:
        raise ValueError(f"its {name[:60]} has {len(parameters)} parameters, not {transform.GetNumberOfParameters()}")
    transform.SetParameters(itk.OptimizerParameters[itk.D](parameters.tolist()))
    return transform


def _matrix(parameters: NDArray[np.float64], centre: NDArray[np.float64], dims: int) -> NDArray[np.float64]:
    """In RAS+ mm, of a matrix and a translation about a centre in LPS."""
    found = np.eye(dims + 1)
    lps, turn = parameters[: dims**2].reshape(dims, dims), flip(dims)
    found[:-1, :-1] = turn @ lps @ turn
    found[:-1, -1] = turn @ (parameters[dims**2 :] + centre - lps @ centre)
    return found


def _affine(transform: Any) -> Affine:
    """The matrix in RAS+ mm: where it takes the origin and the unit vectors."""
    dims = transform.GetInputSpaceDimension()
    probes = np.concatenate([np.zeros((1, dims)), np.eye(dims)])
    images = flip_lps([list(transform.TransformPoint(probe.tolist())) for probe in flip_lps(probes)])
    matrix = np.eye(dims + 1)
    matrix[:-1, -1] = images[0]
    matrix[:-1, :-1] = (images[1:] - images[0]).T
    return Affine(matrix)
