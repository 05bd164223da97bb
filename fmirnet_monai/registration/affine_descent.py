"""An affine map between two images in world space, by descent on their mutual information."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fmirnet_monai.spatial import Affine, Grid, resample
from fmirnet_monai.spatial.field import sample_at

from .adam import Adam

STAGES = {"translation": ("translation",), "rigid": ("rigid",), "affine": ("rigid", "affine")}
SIDES = (16, 32, 64)  # voxels of the levels along the longest axis; finer ones cost seconds and change nothing
SAMPLES = 2048  # drawn anew for each step
FEWEST = 64  # samples that both images must show
BINS = 32
UNSEEN = "affine: the images lose sight of each other; check their positions and masks, or set affine off."
RATE = 0.02  # of Adam on the coarsest level, in half widths of the fixed image; on finer ones less in proportion


@dataclass(frozen=True)
class Side:
    """One of two images ``(1, *grid.shape)``, with the voxels that are valid, bool, or None for all of them."""

    image: Tensor
    valid: Tensor | None
    grid: Grid

    def resized(self, longest: int) -> Side:
        """The same with at most ``longest`` voxels along an axis."""
        if max(self.grid.shape) <= longest:
            return self
        grid = self.grid.with_longest_side(longest)
        valid = None if self.valid is None else resample(self.valid, grid, grid=self.grid, mode="nearest")[0] > 0
        return Side(resample(self.image, grid, grid=self.grid, antialias=True)[0], valid, grid)

    @cached_property
    def places(self) -> Tensor:
        """Voxels that are valid ``(N, D)``."""
        valid = torch.ones(self.grid.shape, dtype=torch.bool) if self.valid is None else self.valid[0]
        return valid.nonzero()

    def draw(self, generator: torch.Generator) -> Tensor:
        """Random valid places ``(N, D)`` in voxels."""
        if len(self.places) == 0:
            raise ValueError(UNSEEN)
        chosen = self.places[torch.randint(len(self.places), (SAMPLES,), generator=generator)]
        return chosen + torch.rand(chosen.shape, generator=generator) - 0.5

    def at(self, voxels: Tensor) -> tuple[Tensor, Tensor]:
        """Values at places in voxels, and which of them are valid."""
        seen = self.grid.holds(voxels.detach())
        if self.valid is not None:
            seen = seen & (sample_at(self.valid.float(), voxels.detach())[0] > 0.5)
        return sample_at(self.image, voxels)[0], seen


class Descent:
    """The parameters of a map from one image's space to another's, brought down stage by stage, coarse to fine.

    The same input gives the same numbers.

    Args:
        moving: intensities in [0, 1].
        fixed: the same.
        from_headers: start where the headers say; otherwise with the two images' centres together.
    """

    def __init__(self, moving: Side, fixed: Side, from_headers: bool) -> None:
        self.levels = [(moving.resized(longest), fixed.resized(longest)) for longest in SIDES]
        self.generator = torch.Generator().manual_seed(0)
        dims = fixed.grid.dims
        centre, there = (side.grid.to_world((np.array(side.grid.shape) - 1) / 2) for side in (fixed, moving))
        self.half = float((fixed.grid.spacing * fixed.grid.shape).max() / 2)
        self.centre = torch.from_numpy(centre)
        self.shift = torch.from_numpy(0 * centre if from_headers else (there - centre) / self.half)
        self.turn = torch.zeros(dims * (dims - 1) // 2).double()
        self.stretch = torch.zeros(dims, dims).double()

    @property
    def map(self) -> Affine:
        """The map as it is now, from the fixed image's space to the moving image's."""
        return Affine(self._matrix().detach().numpy())

    def run(self, stage: str, level: int, iterations: int) -> None:
        """Adam on what a stage leaves free, on a level of :py:data:`SIDES`.

        Raises:
            ValueError: when the images lose sight of each other.
        """
        free = FREE[stage](self)
        for parameter in free:
            parameter.requires_grad_()
        adam, rate = Adam(free), RATE * SIDES[0] / SIDES[level]
        moving, fixed = self.levels[level]
        outer, inner = (torch.from_numpy(m) for m in (np.linalg.inv(moving.grid.affine), fixed.grid.affine))
        for step in range(iterations):
            places = fixed.draw(self.generator)
            whole = (outer @ self._matrix() @ inner).float()  # places far from the origin want double precision so far
            values, seen = moving.at(places @ whole[:-1, :-1].T + whole[:-1, -1])
            if int(seen.sum()) < FEWEST:
                raise ValueError(UNSEEN)
            information = _mutual_information(values[seen], sample_at(fixed.image, places)[0, seen])
            adam.step(torch.autograd.grad(-information, free), rate * (1 - 0.9 * step / iterations))
        for parameter in free:
            parameter.requires_grad_(False)

    def _matrix(self) -> Tensor:
        dims = len(self.shift)
        rows, columns = torch.triu_indices(dims, dims, 1)
        skew = torch.zeros_like(self.stretch).index_put((rows, columns), self.turn)
        linear = torch.linalg.matrix_exp(skew - skew.T) @ (torch.eye(dims).to(skew) + self.stretch)
        offset = self.centre + self.half * self.shift - linear @ self.centre
        return torch.cat([torch.cat([linear, offset[:, None]], dim=1), torch.eye(dims + 1)[-1:].to(skew)])


FREE: dict[str, Callable[[Descent], list[Tensor]]] = {
    "translation": lambda descent: [descent.shift],
    "rigid": lambda descent: [descent.shift, descent.turn],
    "affine": lambda descent: [descent.shift, descent.turn, descent.stretch],
}


def _mutual_information(values: Tensor, target: Tensor) -> Tensor:
    """Of two lists of intensities in [0, 1], their histogram interpolated linearly.

    A gradient takes less than a third of the time of MONAI's Gaussian windows, and it is what takes the time here.
    """
    bins = torch.arange(BINS)
    shares = [(1 - (side.clamp(0, 1)[:, None] * (BINS - 1) - bins).abs()).clamp(min=0) for side in (values, target)]
    joint = shares[0].T @ shares[1] / len(values)
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return (joint * ((joint + 1e-9) / (apart + 1e-9)).log()).sum()
