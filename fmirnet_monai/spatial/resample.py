"""Images from one grid to another, through maps of space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .field import sample_at
from .grid import Grid, precise
from .maps import Affine, Map
from .smoothing import smooth

SAME = 1e-6  # voxels; grids that lie closer have the same values
MODES = ("bilinear", "nearest")


def resample(
    image: Tensor,
    onto: Grid,
    through: Map | None = None,
    *,
    grid: Grid | None = None,
    mode: str = "bilinear",
    fill: float | None = None,
    antialias: bool = False,
) -> tuple[Tensor, Tensor]:
    """Resample an image, once, onto a grid, through a map or in place; slab by slab, on the image's device.

    Args:
        image: ``(C, *spatial)``, any real type.
        onto: grid of the result.
        through: map from the space of ``onto`` to the image's; None is the identity.
        grid: of the image; by default read from it.
        mode: ``"bilinear"`` (trilinear in 3-D) or ``"nearest"`` (labels).
        fill: value beyond the image, half a voxel from its outermost centres; by default the image's smallest, and 0
            with ``"nearest"``. An image of one slice is a slab as thick as its spacing.
        antialias: smooth first along the axes on which ``onto`` is coarser, as an image that is worked on has to be.
            One that is written is not: ITK, SimpleITK and ANTs, given the same map, then give the same values.

    Returns:
        ``(C, *onto.shape)``, a plain tensor in the type of ``image``, and ``inside (*onto.shape)``: where the map is
        known and leads into the image.

    Raises:
        ValueError: when the numbers of axes differ, or for another mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
    source = grid or Grid.of(image)
    through = through or Affine.identity(onto.dims)
    if not source.dims == onto.dims == through.dims:
        raise ValueError(f"image, map and grid have {source.dims}, {through.dims} and {onto.dims} axes.")
    values = image.as_subclass(Tensor)
    if isinstance(through, Affine) and through.still and source.matches(onto, tolerance=SAME):
        return values.clone(), torch.ones(onto.shape, dtype=torch.bool, device=values.device)
    like = precise(values.device)
    through = through.to(values.device)
    if mode == "nearest":
        fill = fill or 0
    else:
        fill = float(values.min()) if fill is None else fill
        if antialias:
            values = _smoothed(values, source, onto, through)
        else:
            least = torch.float32 if image.is_floating_point() else like.dtype
            values = values.to(torch.promote_types(values.dtype, least))
    result = torch.empty(len(values), *onto.shape, dtype=values.dtype, device=values.device)
    inside = torch.empty(onto.shape, dtype=torch.bool, device=values.device)
    for slab in onto.slabs():
        points, known = through.at(onto, slab, like)
        voxels = source.to_voxel(points)
        seen = source.holds(voxels)
        found = sample_at(values, voxels) if mode == "bilinear" else _nearest(values, voxels)
        result[:, slab] = found.masked_fill_(~seen, fill)
        inside[slab] = seen & known
    rounded = result.is_floating_point() and not image.is_floating_point()
    return (result.round() if rounded else result).to(image.dtype), inside


def _nearest(values: Tensor, voxels: Tensor) -> Tensor:
    """Value of the nearest voxel, the higher of two at equal distance, as in ITK."""
    places = [(voxels[..., i] + 0.5).floor().long().clamp(0, n - 1) for i, n in enumerate(values.shape[1:])]
    return torch.stack([channel[tuple(places)] for channel in values])


def _smoothed(values: Tensor, source: Grid, onto: Grid, through: Map) -> Tensor:
    """The image, smoothed as far as the voxels of ``onto`` are larger than its own."""
    factors = coarsening(source, onto, through)
    sigmas = [0.0 if n == 1 else max(0.0, (f - 1) / 2) for f, n in zip(factors, source.shape, strict=True)]
    return smooth(values.unsqueeze(0).to(torch.promote_types(values.dtype, torch.float32)), sigmas)[0]


def coarsening(source: Grid, onto: Grid, through: Map | None = None) -> NDArray[np.float64]:
    """How many voxels of ``source`` a voxel of ``onto`` is long along each axis of ``source``, a map's affine parts
    included.
    """
    matrix = onto.affine
    for part in through.parts() if through else ():
        matrix = part.matrix @ matrix if isinstance(part, Affine) else matrix
    return np.linalg.norm((np.linalg.inv(source.affine) @ matrix)[:-1, :-1], axis=1)


def extend(image: Tensor, known: Tensor) -> Tensor:
    """An image ``(C, *spatial)`` that goes on where it isn't ``known (*spatial)`` with the nearest known voxel's value.

    So its edge is none that anything could be aligned with. Where nothing is known it stays as it is.
    """
    if known.all() or not known.any():
        return image
    from scipy.ndimage import distance_transform_edt  # most images are known everywhere

    indices = distance_transform_edt(~known.cpu().numpy(), return_distances=False, return_indices=True)
    places = tuple(torch.from_numpy(axis).long().to(image.device) for axis in indices)
    return torch.stack([channel[places] for channel in image])


def resize(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Linear interpolation of ``(B, C, *spatial)`` to ``size`` over the same extent; shrinking smooths first."""
    tensor = smooth(tensor, [max(0.0, (o / n - 1) / 2) for o, n in zip(tensor.shape[2:], size, strict=True)])
    mode = "bilinear" if tensor.dim() == 4 else "trilinear"
    return F.interpolate(tensor, size=tuple(size), mode=mode, align_corners=False)


def resize_field(ddf: Tensor, size: Sequence[int]) -> Tensor:
    """The field ``(B, D, *spatial)`` on a grid of another size over the same extent, in voxels of that grid."""
    scale = [new / old for old, new in zip(ddf.shape[2:], size, strict=True)]
    return resize(ddf, size) * torch.tensor(scale).to(ddf).reshape(1, -1, *[1] * len(scale))
