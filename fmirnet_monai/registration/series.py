"""All frames of a series registered to one reference, each from its neighbour's map on."""

from __future__ import annotations

import math
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fmirnet_monai.metrics.similarity import ncc
from fmirnet_monai.spatial import Affine, DisplacementField, Grid, Map, chain, compose, resample, smooth
from fmirnet_monai.spatial.image import on_grid, plain

from .base import PairRegistrar

MEAN = "mean"
# Standard deviation of the Gaussian that smooths a neighbour's map, by the reference's longest side. Without it the
# maps of far frames get rough; from 0.02 to 0.08 labels and jitter are about alike (docs/results/series.md).
SMOOTHED = 0.04
Kept = MutableMapping[tuple[int, int], DisplacementField]  # by round and frame


@dataclass(frozen=True, eq=False)
class SeriesRegistration:
    """A registered series.

    Attributes:
        reference: image ``(1, *spatial)`` that all frames are registered to.
        maps: of each frame, from the reference's space to the frame's, on the reference's grid.
        index: number of the frame that is the reference, from 0; None for a mean.
    """

    reference: Tensor
    maps: Sequence[DisplacementField]
    index: int | None

    def between(self, start: int | None, end: int | None) -> Map:
        """The map from one frame's space to another's, None for the reference; nothing is sampled.

        Points of frame ``start`` go along it to frame ``end``, an image of ``end`` is pulled back onto ``start``.
        """
        if start == end:
            return Affine.identity(Grid.of(self.reference).dims)
        known = (None, self.index)
        there = [] if start in known else [self.maps[start].inverse()]
        back = [] if end in known else [self.maps[end]]
        return chain([*there, *back] or [Affine.identity(Grid.of(self.reference).dims)])

    def jitter(self) -> dict[str, float]:
        """How unsteadily the displacement goes on over time, in mm: its second difference ``u[t-1] - 2 u[t] + u[t+1]``.

        Returns:
            ``jitter``: root mean square over time and voxels; ``jitter_95``: 95th percentile over the voxels of the
            root mean square over time. NaN for fewer than three frames.
        """
        turns = list(zip(self.maps, self.maps[1:], self.maps[2:], strict=False))
        if not turns:
            return {"jitter": math.nan, "jitter_95": math.nan}
        squares = sum(
            DisplacementField(a.ddf - 2 * b.ddf + c.ddf, b.grid).length().square() for a, b, c in turns
        ) / len(turns)
        assert isinstance(squares, Tensor)
        squares = squares.cpu()  # Apple's GPUs have no double precision
        high = squares.flatten().kthvalue(max(1, round(0.95 * squares.numel()))).values
        return {"jitter": float(squares.double().mean().sqrt()), "jitter_95": float(high.sqrt())}


def register_series(
    frames: Sequence[Tensor],
    registrar: PairRegistrar,
    reference: int | str = 0,
    rounds: int = 3,
    neighbours: bool = True,
    kept: Kept | None = None,
    progress: bool = False,
) -> SeriesRegistration:
    """Register all frames of a series to one reference.

    It goes outwards from the reference. Each frame is resampled through the smoothed map of its neighbour on the
    reference's side, what remains is registered to the reference, and both maps are joined; a neighbour's map that fits
    worse than none, by normalised cross-correlation, is left out. All frames are registered to the reference itself, so
    errors don't add up as along a chain of pairs.

    With ``"mean"`` the first round registers to the frame that is most like the mean of all. Then the mean displacement
    is taken out of all maps (Guimond et al., "Average brain models", CVIU 2000), the mean of the frames so warped is
    the new reference, and the next round goes on from each frame's own map. At the end the displacements have mean
    zero, so no frame is preferred.

    Args:
        frames: two or more images ``(1, *spatial)`` in order of time.
        registrar: of each pair.
        reference: number of a frame, from 0, or ``"mean"``.
        rounds: of registering to a mean, at least 1.
        neighbours: start from the neighbour's map; otherwise each frame is registered by itself.
        kept: maps of an earlier run of the same series, by round and frame; gets those that are found.
        progress: show a bar.

    Raises:
        ValueError: for fewer than two frames, another reference, no round, or a frame that can't be registered.
    """
    if len(frames) < 2:
        raise ValueError(f"frames: a series has two or more, got {len(frames)}.")
    if reference != MEAN and not (isinstance(reference, int) and 0 <= reference < len(frames)):
        raise ValueError(f"reference must be mean or a frame from 0 to {len(frames) - 1}, got {reference!r}.")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}.")
    frames = [placed(frame, registrar.device) for frame in frames]
    index = most_typical(frames) if reference == MEAN else int(reference)
    work = _Work(frames, registrar, {} if kept is None else kept)
    steps = rounds if reference == MEAN else 1
    with tqdm(total=steps * len(frames), desc="registering", unit="frame", disable=not progress) as work.bar:
        maps = work.outwards(index, neighbours)
        if reference != MEAN:
            return SeriesRegistration(frames[index], maps, index)
        mean, maps = unbiased_mean(frames, maps)
        for step in range(1, rounds):
            maps = [work.follow(step, number, mean, start) for number, start in enumerate(maps)]
            mean, maps = unbiased_mean(frames, maps)
    return SeriesRegistration(mean, maps, None)


def placed(frame: Tensor, device: torch.device) -> Tensor:
    """A frame in single precision on a device, in its place."""
    return on_grid(plain(frame, torch.float32, device), Grid.of(frame), frame)


@dataclass(eq=False)
class _Work:
    """The frames, on the registrar's device, and what registers them."""

    frames: Sequence[Tensor]
    registrar: PairRegistrar
    kept: Kept
    bar: Any = None

    def outwards(self, index: int, neighbours: bool) -> list[DisplacementField]:
        """The maps of all frames to one of them, from its neighbours on."""
        fixed = self.frames[index]
        found = {index: DisplacementField.identity(Grid.of(fixed)).to(self.registrar.device)}
        self.bar.update()
        for number in sorted({*range(len(self.frames))} - {index}, key=lambda number: abs(number - index)):
            nearer = number - 1 if number > index else number + 1
            start = found[nearer] if neighbours and nearer != index else None
            found[number] = self.follow(0, number, fixed, start)
        return [found[number] for number in range(len(self.frames))]

    def follow(self, step: int, number: int, fixed: Tensor, start: DisplacementField | None) -> DisplacementField:
        """The map of a frame to an image, from a map on that image's grid on."""
        if (known := self.kept.get((step, number))) is None:
            try:
                known = _register_from(start, self.frames[number], fixed, self.registrar)
            except ValueError as error:
                raise ValueError(f"frame {number}: {error}") from error
            self.kept[step, number] = known
        self.bar.update()
        return known.to(self.registrar.device)


def _register_from(
    start: DisplacementField | None, frame: Tensor, fixed: Tensor, registrar: PairRegistrar
) -> DisplacementField:
    grid = Grid.of(fixed)
    shown, mask = frame, None
    if start is not None:
        start = smoothed(start)
        values, inside = resample(frame, grid, start)
        if likeness(values, fixed, inside) > likeness(*_in_place(frame, fixed)):
            shown = on_grid(values, grid, frame)
            mask = None if inside.all() else on_grid(inside[None].to(torch.uint8), grid)
        else:
            start = None
    affine, rest = registrar.estimate(shown, fixed, moving_mask=mask)
    field = DisplacementField.of(rest.then(affine), grid)[0]
    return field if start is None else joined(field, start)


def smoothed(field: DisplacementField) -> DisplacementField:
    """A field as a start: without what it has of its own frame's noise, which would add up from frame to frame."""
    sides = np.array(field.grid.shape) * field.grid.spacing
    sigmas = (SMOOTHED * sides.max() / field.grid.spacing).tolist()
    return DisplacementField(smooth(field.ddf[None], sigmas)[0], field.grid)


def joined(inner: DisplacementField, outer: DisplacementField) -> DisplacementField:
    """``x -> outer(inner(x))`` of two fields on one grid; beyond it the outer one goes on with its border values.

    A chain would move nothing there, which tears the map where the inner one leads out of the grid.
    """
    return DisplacementField(compose(outer.ddf[None], inner.ddf[None])[0], inner.grid)


def unbiased_mean(
    frames: Sequence[Tensor], maps: Sequence[DisplacementField]
) -> tuple[Tensor, list[DisplacementField]]:
    """The maps without their mean displacement, and the mean of the frames warped by these, each resampled once.

    Args:
        frames: ``(1, *spatial)``.
        maps: of each, on one grid.

    Returns:
        the mean image on that grid, its smallest value where no frame is seen, and the maps.
    """
    grid = maps[0].grid
    total = torch.zeros_like(maps[0].ddf)
    for found in maps:
        total += found.ddf
    back = DisplacementField.of(DisplacementField(total / len(maps), grid).inverse(), grid)[0]
    maps = [joined(back, found) for found in maps]
    return _mean((resample(frame, grid, found) for frame, found in zip(frames, maps, strict=True)), grid, frames), maps


def most_typical(frames: Sequence[Tensor]) -> int:
    """Number of the frame that is most like the mean of all as they lie, by normalised cross-correlation."""
    grid = Grid.of(frames[0])
    mean = _mean((resample(frame, grid) for frame in frames), grid, frames)
    return max(range(len(frames)), key=lambda number: likeness(*_in_place(frames[number], mean)))


def likeness(image: Tensor, fixed: Tensor, inside: Tensor) -> float:
    """Normalised cross-correlation of two images ``(1, *spatial)`` where ``inside (*spatial)``; -1 where it is none."""
    one, other, weights = (plain(part, torch.float32).squeeze()[None, None] for part in (image, fixed, inside))
    found = float(ncc(one, other, weights)) if inside.any() else math.nan
    return -1.0 if math.isnan(found) else found


def _in_place(image: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What :py:func:`likeness` takes of two images as their headers place them."""
    values, inside = resample(image, Grid.of(fixed))
    return values, fixed, inside


def _mean(warped: Iterable[tuple[Tensor, Tensor]], grid: Grid, frames: Sequence[Tensor]) -> Tensor:
    """Mean of images ``(1, *spatial)`` where they are seen ``(*spatial)``."""
    total = torch.zeros(1, *grid.shape, device=frames[0].device)
    count = torch.zeros_like(total)
    for values, inside in warped:
        total += torch.where(inside, values, 0)
        count += inside
    mean = total / count
    return on_grid(torch.where(count > 0, mean, mean[count > 0].min()), grid, frames[0])
