"""A level of an image pyramid: what is registered there, and where it is valid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from fmirnet_monai.spatial import identity_grid, resize

from .guides import Guide

LOST = 0.3  # share of what is seen at the start that descent may lead out of view


@dataclass(frozen=True, eq=False)
class Level:
    """A level of the pyramid: images ``(B, C, *spatial)``, where they are valid, and what to do there.

    Attributes:
        moving: image to warp.
        fixed: image to fit.
        moving_mask: ``(B, 1, *spatial)`` of 0 and 1, None where it is valid everywhere.
        fixed_mask: the same of the fixed image.
        iterations: at most so many.
        scale: the finest voxel side over that of each axis, at most 1, ``(1, D, 1, …)``.
        guides: what else is to fit.
    """

    moving: Tensor
    fixed: Tensor
    moving_mask: Tensor | None
    fixed_mask: Tensor | None
    iterations: int
    scale: Tensor
    guides: tuple[Guide, ...] = ()

    @property
    def size(self) -> torch.Size:
        """Voxels along each axis."""
        return self.moving.shape[2:]

    @cached_property
    def _centres(self) -> tuple[Tensor, Tensor]:
        """Where each voxel's centre lies for ``grid_sample``, ``(1, *spatial, D)``, and the length of a voxel there."""
        size = torch.tensor(self.size[::-1]).to(self.moving)
        length = 2.0 / (size - 1).clamp(min=1)
        return identity_grid(self.moving).movedim(1, -1).flip(-1) * length - 1.0, length

    @cached_property
    def _bounds(self) -> list[tuple[Tensor, Tensor]]:
        """Displacements that lead as far as half a voxel beyond the outermost centres, along each axis."""
        bounds = []
        for axis, size in enumerate(self.size):
            places = torch.arange(size).to(self.moving).reshape(-1, *[1] * (len(self.size) - 1 - axis))
            bounds.append((-0.5 - places, size - 0.5 - places))
        return bounds

    def through(self, image: Tensor, ddf: Tensor) -> Tensor:
        """:py:func:`fmirnet_monai.spatial.warp`, with what all fields of the level share made once."""
        centres, length = self._centres
        places = torch.addcmul(centres, ddf.movedim(1, -1).flip(-1), length)
        return F.grid_sample(image, places, padding_mode="border", align_corners=True)

    def compose(self, outer: Tensor, inner: Tensor) -> Tensor:
        """:py:func:`fmirnet_monai.spatial.compose` likewise."""
        return inner + self.through(outer, inner)

    @torch.no_grad()
    def seen(self, ddf: Tensor) -> Tensor:
        """Where a field leads from a valid voxel of the fixed image to one of the moving, bool ``(B, 1, *spatial)``."""
        return self.warped(ddf)[1]

    def keeps_view(self, before: Tensor, after: Tensor, lost: float = LOST) -> Tensor:
        """Whether each item's field sees most of what another saw, all but the share ``lost``, bool ``(B)``."""
        return self.seen(after).flatten(1).sum(1) >= (1 - lost) * self.seen(before).flatten(1).sum(1)

    def items(self, chosen: Sequence[int]) -> Level:
        """The level of some items of the batch."""
        if len(chosen) == len(self.moving):
            return self
        masks = [None if mask is None else mask[chosen] for mask in (self.moving_mask, self.fixed_mask)]
        return replace(
            self,
            moving=self.moving[chosen],
            fixed=self.fixed[chosen],
            moving_mask=masks[0],
            fixed_mask=masks[1],
            guides=tuple(guide.items(chosen) for guide in self.guides),
        )

    def warped(self, ddf: Tensor) -> tuple[Tensor, Tensor]:
        """The moving image through a field, and where it is valid, see :py:meth:`seen`."""
        seen = ddf.new_ones((), dtype=torch.bool)
        for axis, (low, high) in enumerate(self._bounds):
            along = ddf[:, axis : axis + 1]
            seen = seen & (along >= low) & (along <= high)
        if self.moving_mask is None:
            warped = self.through(self.moving, ddf)
        else:
            both = self.through(torch.cat([self.moving, self.moving_mask.to(self.moving)], dim=1), ddf)
            warped, valid = both[:, :-1], both[:, -1:]
            seen &= valid > 0.999
        return warped, seen if self.fixed_mask is None else seen & (self.fixed_mask > 0)


def binary(mask: Tensor | None) -> Tensor | None:
    """0 and 1, or None where it is valid everywhere."""
    return None if mask is None or bool((mask > 0).all()) else (mask > 0).float()


def resized(image: Tensor, mask: Tensor | None, size: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """Image and mask of another size; of an image's voxels only the valid ones are averaged."""
    if mask is None or tuple(image.shape[2:]) == tuple(size):
        return resize(image, size), mask
    share = resize(mask, size)
    valid = resize(image * mask, size) / share.clamp(min=1e-6)
    return torch.where(share > 1e-3, valid, resize(image, size)), (share > 0.5).float()
