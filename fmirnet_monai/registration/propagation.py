"""From labels on a few slices of a volume to labels on the slices between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from fmirnet_monai.parallel import at_a_time
from fmirnet_monai.spatial import DisplacementField, Grid, resize, smooth, warp
from fmirnet_monai.spatial.image import on_grid, plain

from .base import PairRegistrar

# Of the confidence: the standard deviation of a propagated outline is so many pixels on the annotated slice itself, and
# grows by these shares of the distance to the nearer annotated slice and of the two neighbours' disagreement.
OUTLINE_ERROR = 0.7
OUTLINE_ERROR_OF_DISTANCE = 0.05
OUTLINE_ERROR_OF_DISAGREEMENT = 0.5


@dataclass(frozen=True)
class Annotation:
    """Which slices of a sparse label map a person has drawn.

    Attributes:
        axis: array axis along which the slices lie.
        slices: their indices, rising, at least two.
    """

    axis: int
    slices: tuple[int, ...]

    @classmethod
    def find(cls, label: Tensor, axis: int | None = None, slices: Sequence[int] | None = None) -> Annotation:
        """The annotated slices of a label map.

        Args:
            label: integers ``(1, X, Y, Z)``, 0 where nothing is drawn.
            axis: of the slices; by default the one along which the labelled slices have the most empty ones between
                them.
            slices: the annotated ones, where some of them are rightly empty; by default those with a label.

        Raises:
            ValueError: when there are fewer than two, none is left between them, or a labelled one is not in
                ``slices``.
        """
        drawn = plain(label)[0] != 0
        if drawn.dim() != 3:
            raise ValueError(f"slices are propagated through a volume, this one has {drawn.dim()} axes.")
        if axis is None:
            axis = max(range(3), key=lambda i: _empty_between(_labelled(drawn, i)))
        elif axis not in (0, 1, 2):
            raise ValueError(f"axis must be 0, 1 or 2, got {axis}.")
        found = _labelled(drawn, axis)
        given = sorted(set(found if slices is None else slices))
        if outside := [i for i in given if not 0 <= i < drawn.shape[axis]]:
            raise ValueError(f"slices: {outside[0]} is none of the {drawn.shape[axis]} slices along axis {axis}.")
        if extra := sorted(set(found) - set(given)):
            raise ValueError(
                f"slices: {_ranges(extra)} along axis {axis} carry labels but are not among those given as annotated; "
                "add them, clear them, or give another axis."
            )
        if len(given) < 2:
            raise ValueError(
                f"only slice {given[0]} along axis {axis} is annotated, a slice needs an annotated neighbour on "
                "both sides; annotate at least two, best the first and the last of each structure too."
            )
        if given[-1] - given[0] + 1 == len(given):
            raise ValueError(
                f"no slice is left between the annotated ones, {_ranges(given)} along axis {axis}; clear those "
                "that were not drawn, or give --axis if slices were annotated along another axis."
            )
        return cls(axis, tuple(given))

    def neighbours(self, index: int) -> tuple[int, int] | None:
        """The annotated slices on both sides of one that isn't; None for annotated ones and beyond the outermost."""
        if index in self.slices or not self.slices[0] < index < self.slices[-1]:
            return None
        above = next(i for i in self.slices if i > index)
        return self.slices[self.slices.index(above) - 1], above

    def describe(self, depth: int) -> str:
        """What was annotated and what can't be labelled, in a line."""
        text = f"annotated along axis {self.axis}: {_ranges(self.slices)}"
        beyond = [*range(self.slices[0]), *range(self.slices[-1] + 1, depth)]
        return f"{text}; left empty, as beyond them: {_ranges(beyond)}" if beyond else text


@dataclass(frozen=True)
class Blend:
    """How what comes from both annotated neighbours is weighted: by ``nearness ** n / difference ** q``.

    The difference is the mean absolute one of intensities in [0, 1] that registration leaves around a voxel. It is
    taken on coarse pixels, as noise says nothing about the registration. The defaults are within 0.003 Dice of the best
    choice on four validation volumes of CT and MR, see ``docs/results/propagation_choices.md``.

    Attributes:
        nearness: n, of the number of slices to the other neighbour.
        quality: q.
        pixels: along the slice's longest side, of the coarse image that differences are taken on.
        sigma: standard deviation, in these pixels, of the Gaussian that says what is around a voxel.
        floor: added to the difference.
    """

    nearness: float = 3.0
    quality: float = 6.0
    pixels: int = 112
    sigma: float = 2.0
    floor: float = 1e-3

    def difference(self, warped: Tensor, fixed: Tensor, spacing: NDArray[np.floating]) -> Tensor:
        """Local difference ``(*spatial)`` of two slices of that shape, ``spacing`` in any unit."""
        sides = np.multiply(fixed.shape, spacing)
        pixel = sides.max() / self.pixels
        size = [min(n, max(1, round(side / pixel))) for n, side in zip(fixed.shape, sides, strict=True)]
        coarse = resize((warped - fixed)[None, None], size).abs()
        local = smooth(coarse, self.sigma * float(pixel / np.mean(sides / size)))
        return resize(local, fixed.shape)[0, 0] + self.floor

    def share(self, nearness: Sequence[int], differences: Sequence[Tensor]) -> Tensor:
        """Weight in [0, 1], ``(*spatial)``, of the first neighbour, from the nearness and difference of both."""
        logit = self.nearness * math.log(nearness[0] / nearness[1])
        return (logit - self.quality * (differences[0] / differences[1]).log()).sigmoid()


@dataclass(frozen=True, eq=False)
class Propagation:
    """What came of a sparse label.

    Attributes:
        label: ``(1, X, Y, Z)`` integers; as drawn on the annotated slices, empty beyond the outermost.
        confidence: ``(1, X, Y, Z)`` estimated probability in [0, 1] that the label of the voxel is right; 1 on
            annotated slices, 0 beyond the outermost.
        annotation: the slices that were annotated.
    """

    label: Tensor
    confidence: Tensor
    annotation: Annotation


def propagate(
    image: Tensor,
    label: Tensor,
    annotation: Annotation,
    registrar: PairRegistrar | None = None,
    blend: Blend | None = None,
    progress: bool = False,
) -> Propagation:
    """Label every slice between annotated ones from its neighbours on both sides.

    The annotated neighbours are registered to the slice, the signed distance maps of their labels are warped, and
    blended by nearness and by how well the warped image agrees with the slice around each voxel. A structure that only
    one neighbour has ends halfway between them.

    Args:
        image: ``(1, X, Y, Z)``, intensities in [0, 1]; one that knows its place gives its class to the result.
        label: integers on the same grid, 0 where nothing is drawn.
        annotation: the annotated slices.
        registrar: of 2-D images; None registers nothing, which is linear interpolation of the signed distance maps.
        blend: weights of both neighbours, where they are registered.
        progress: show a bar.
    """
    blend = blend or Blend()
    grid = Grid.of(image)
    axis = annotation.axis
    spacing = np.delete(grid.spacing, axis)
    distance = float(grid.spacing[axis])
    images = plain(image, torch.float32)[0].movedim(axis, 0)
    labels = plain(label)[0].movedim(axis, 0)
    ids = [int(i) for i in labels.unique() if i != 0]
    maps = {
        index: torch.stack([signed_distance(labels[index] == i, spacing) for i in ids]) for index in annotation.slices
    }
    result = torch.zeros_like(labels)
    confidence = torch.zeros_like(images)
    for index in annotation.slices:
        result[index], confidence[index] = labels[index], 1.0
    todo = [index for index in range(len(images)) if annotation.neighbours(index)]

    def fill(index: int) -> None:
        """Label and confidence of a slice."""
        sides = annotation.neighbours(index)
        assert sides is not None
        known = [m.clone() for m in _filled(maps[sides[0]], maps[sides[1]])]
        nearness = [sides[1] - index, index - sides[0]]
        share = torch.full_like(images[index], nearness[0] / sum(nearness))
        if registrar is not None:
            differences = []
            for k, side in enumerate(sides):
                warped, known[k] = _follow(registrar, images[side], images[index], known[k], spacing)
                differences.append(blend.difference(warped, images[index], spacing))
            share = blend.share(nearness, differences)
        blended = share * known[0] + (1 - share) * known[1]
        scores = torch.cat([-blended.amax(0, keepdim=True), blended])
        best = scores.topk(2, dim=0)
        nearer = distance * min(nearness)
        spread = (known[0] - known[1]).abs().gather(0, blended.argmax(0, keepdim=True))[0]
        outline = OUTLINE_ERROR * float(spacing.mean()) + OUTLINE_ERROR_OF_DISTANCE * nearer
        error = torch.sqrt(outline**2 + (OUTLINE_ERROR_OF_DISAGREEMENT * spread) ** 2)
        margin = (best.values[0] - best.values[1]) / 2
        result[index] = torch.tensor([0, *ids]).to(labels)[best.indices[0]]
        confidence[index] = torch.special.ndtr(margin / error)

    device = torch.device("cpu") if registrar is None else registrar.device
    at_a_time(fill, todo, device, "propagating", "slice", progress)
    found, certain = (on_grid(part.movedim(0, axis)[None], grid, image) for part in (result, confidence))
    return Propagation(found, certain, annotation)


def signed_distance(mask: Tensor, spacing: NDArray[np.floating]) -> Tensor:
    """Distance in mm to the outline of a mask ``(*spatial)``, positive inside; minus infinity where it is empty."""
    inside = mask.numpy()
    if not inside.any():
        return torch.full(mask.shape, -math.inf)
    padded = np.pad(inside, 1)  # a structure that fills the image ends at its border
    distance = distance_transform_edt(padded, spacing) - distance_transform_edt(~padded, spacing)
    half = float(np.mean(spacing)) / 2  # from the centre of the nearest voxel beyond it to the outline
    distance = distance - half * np.sign(distance)
    return torch.from_numpy(distance[(slice(1, -1),) * mask.dim()].copy()).float()


def _filled(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Where a structure is missing on one side, a map that lets the other side's shrink to nothing halfway."""
    result = []
    for here, there in ((one, other), (other, one)):
        depth = there.flatten(1).amax(1).reshape(-1, *[1] * (here.dim() - 1)).expand_as(here)
        far = torch.full_like(here, -1e3)
        result.append(torch.where(here.isinf(), torch.where(depth.isinf(), far, -depth), here))
    return result[0], result[1]


def _follow(
    registrar: PairRegistrar, moving: Tensor, fixed: Tensor, maps: Tensor, spacing: NDArray[np.floating]
) -> tuple[Tensor, Tensor]:
    """Register a slice to another; the warped one, and the ``maps (L, *spatial)`` warped with it."""
    if moving.min() == moving.max() or fixed.min() == fixed.max():  # an empty slice says nothing
        return moving, maps
    grid = Grid(tuple(fixed.shape), np.diag([*spacing, 1.0]))
    pair = [on_grid(slice_[None], grid) for slice_ in (moving, fixed)]
    affine, field = registrar.estimate(pair[0], pair[1])
    ddf = DisplacementField.of(field.then(affine), field.grid)[0].ddf[None].to(maps)
    moved = warp(torch.cat([moving[None], maps])[None], ddf)[0]
    return moved[0], moved[1:]


def _labelled(drawn: Tensor, axis: int) -> list[int]:
    """Indices of the slices along an axis that hold a label."""
    return [int(i) for i in drawn.movedim(axis, 0).flatten(1).any(1).nonzero()]


def _empty_between(slices: Sequence[int]) -> float:
    """Share of empty slices between the first and the last; 1 for a single slice, along which the label is drawn."""
    return 1 - len(slices) / (slices[-1] - slices[0] + 1) if len(slices) > 1 else 1.0


def _ranges(indices: Sequence[int]) -> str:
    """Rising numbers in short: 3, 7-9."""
    parts: list[list[int]] = []
    for index in indices:
        if parts and index == parts[-1][-1] + 1:
            parts[-1].append(index)
        else:
            parts.append([index])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
