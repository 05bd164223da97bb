"""The affine stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fmirnet_monai.metrics.similarity import nmi
from fmirnet_monai.spatial import Affine, Grid, resample
from fmirnet_monai.spatial.image import on_grid, plain
from fmirnet_monai.utils import warn

from .affine_descent import SIDES, STAGES, Descent, Side


def register_affine(
    moving: Tensor,
    fixed: Tensor,
    kind: str = "affine",
    moving_grid: Grid | None = None,
    fixed_grid: Grid | None = None,
    iterations: int = 60,
    moving_mask: Tensor | None = None,
    fixed_mask: Tensor | None = None,
) -> Affine:
    """Align two images in world space by mutual information (Mattes), coarse to fine.

    Both starts are tried on the coarsest level, from the positions in the headers and from the two images' centres
    together. Of those that see at least half of what any of them sees, the one with the most mutual information of what
    it sees is followed. In the end it has to beat the unregistered pair; where it doesn't there is a warning.

    Args:
        moving: ``(1, *spatial)``, any grid.
        fixed: the same. Two volumes of one slice in parallel planes are aligned within the plane.
        kind: ``"translation"``, ``"rigid"`` or ``"affine"`` (which begins with a rigid one).
        moving_grid: by default read from the image.
        fixed_grid: the same.
        iterations: of each of the levels.
        moving_mask: ``(1, *spatial)`` on any grid in the moving image's space; where it is 0 the image says nothing.
        fixed_mask: the same of the fixed image.

    Returns:
        the map from the fixed image's space to the moving image's.

    Raises:
        ValueError: for another ``kind``, a single slice against a volume or another plane, or when nothing is found.
    """
    if kind not in STAGES:
        raise ValueError(f"affine must be one of {tuple(STAGES)}, got {kind!r}.")
    grids = moving_grid or Grid.of(moving), fixed_grid or Grid.of(fixed)
    if any(min(grid.shape) < 2 for grid in grids):
        return _register_in_plane(moving, fixed, kind, grids, iterations, (moving_mask, fixed_mask))
    sides = []
    for image, grid, mask in zip((moving, fixed), grids, (moving_mask, fixed_mask), strict=True):
        valid = None
        if mask is not None:
            valid = resample(plain(mask, device="cpu"), grid, grid=Grid.of(mask), mode="nearest")[0] > 0
        coarse = Side(plain(image, torch.float32, "cpu"), valid, grid).resized(SIDES[-1])
        sides.append(replace(coarse, image=_scaled(coarse.image)))

    def likeness(found: Affine) -> tuple[float, float]:
        """Share of the fixed image that is seen, and mutual information of what is seen."""
        first, second = sides
        warped, inside = resample(first.image, second.grid, found, grid=first.grid)
        if first.valid is not None:
            inside = inside & resample(first.valid, second.grid, found, grid=first.grid, mode="nearest")[0][0]
        if second.valid is not None:
            inside = inside & second.valid[0]
        share = float(inside.float().mean())
        information = _mutual_information(warped[:, inside], second.image[:, inside]) if share else np.nan
        return share, -np.inf if np.isnan(information) else information

    overlap = grids[1].overlaps(grids[0])
    begun: list[Descent] = []
    for from_headers in (True, False) if overlap else (False,):
        descent = Descent(sides[0], sides[1], from_headers)
        try:
            descent.run(STAGES[kind][0], 0, iterations)
            begun.append(descent)
        except ValueError:
            if not begun and not from_headers:
                raise
    chosen = begun[_best([descent.map for descent in begun], likeness)]
    for stage in STAGES[kind]:
        for level in range(1, len(SIDES)):  # the first one is done, and coarse enough for what a turn leaves
            chosen.run(stage, level, iterations)
    candidates = [chosen.map, *([Affine.identity(grids[1].dims)] if overlap else [])]
    best = _best(candidates, likeness)
    if best > 0:
        warn(f"affine: the {kind} stage made the images less alike and is left out.")
    return candidates[best]


def _best(candidates: Sequence[Affine], likeness: Callable[[Affine], tuple[float, float]]) -> int:
    """Of those that see at least half of what any of them sees, the one with the most information."""
    shares, information = zip(*(likeness(candidate) for candidate in candidates), strict=True)
    enough = [i for i, share in enumerate(shares) if share >= max(shares) / 2]
    return max(enough, key=lambda i: information[i])


def _register_in_plane(
    moving: Tensor,
    fixed: Tensor,
    kind: str,
    grids: tuple[Grid, Grid],
    iterations: int,
    masks: tuple[Tensor | None, Tensor | None],
) -> Affine:
    """The same for two volumes of one slice each: a 2-D map in the fixed image's plane, then straight to the other."""
    kept = [[axis for axis, size in enumerate(grid.shape) if size > 1] for grid in grids]
    frame = grids[1].affine[:-1, kept[1]] / grids[1].spacing[kept[1]]  # (3, 2), the plane's axes
    planes = []
    for grid, axes in zip(grids, kept, strict=True):
        columns = grid.affine[:-1, axes]
        directions = columns / np.linalg.norm(columns, axis=0)
        parallel = np.allclose(frame @ (frame.T @ directions), directions, atol=1e-3)
        if any(len(both) != 2 for both in kept) or not parallel:
            raise ValueError("affine: a single slice can be aligned with another one in a parallel plane only.")
        flat = np.eye(3)
        flat[:2, :2], flat[:2, 2] = frame.T @ columns, frame.T @ grid.affine[:-1, -1]
        planes.append(Grid(tuple(grid.shape[axis] for axis in axes), flat))
    slices = [plain(image).reshape(1, *plane.shape) for image, plane in zip((moving, fixed), planes, strict=True)]
    flat_masks: list[Tensor | None] = [None, None]
    for i, mask in enumerate(masks):
        if mask is not None:
            values = resample(mask, grids[i], mode="nearest")[0].reshape(1, *planes[i].shape)
            flat_masks[i] = on_grid(values, planes[i])
    flat = register_affine(
        slices[0], slices[1], kind, planes[0], planes[1], iterations, flat_masks[0], flat_masks[1]
    ).matrix
    matrix = np.eye(4)
    matrix[:-1, :-1] += frame @ (flat[:-1, :-1] - np.eye(2)) @ frame.T
    normal = np.cross(frame[:, 0], frame[:, 1])
    apart = normal @ (grids[0].affine[:-1, -1] - grids[1].affine[:-1, -1])
    matrix[:-1, -1] = frame @ flat[:-1, -1] + apart * normal
    return Affine(matrix)


def _scaled(image: Tensor) -> Tensor:
    """Most of the intensities to [0, 1]."""
    low, high = torch.quantile(image, torch.tensor([0.001, 0.999]))
    return ((image - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)


def _mutual_information(image: Tensor, fixed: Tensor) -> float:
    return float(nmi(image[None], fixed[None], bins=32))
