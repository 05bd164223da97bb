"""What may guide a registration beside the two images: labels, landmarks, further channels, features.

Each guide pulls beside the images, at most ``weight`` times as strongly as they do, and has an error, which counts when
it is judged which of two fields is the better one. Labels and landmarks pull less once they are less than a voxel away.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from fmirnet_monai.losses.masked import masked_mean, only_valid
from fmirnet_monai.spatial import identity_grid, resize, smooth
from fmirnet_monai.spatial.field import sample, sample_at

TINY = 1e-12  # pull, below which there is none
SPREAD = 2.0  # voxels: the least smoothing of labels' and landmarks' pull, which takes along what lies around them


@dataclass(frozen=True, eq=False, kw_only=True)
class Guide(ABC):
    """Something of a batch of pairs that a field should bring together.

    Attributes:
        weight: of its pull against the images'.
    """

    weight: float = 1.0

    @abstractmethod
    def resized(self, size: Sequence[int]) -> Guide:
        """On a grid of another number of voxels over the same extent."""

    @abstractmethod
    def items(self, chosen: Sequence[int]) -> Guide:
        """Of some items of the batch."""

    @abstractmethod
    def cut(self, axis: int, index: int) -> Guide:
        """Of one slice of a volume."""

    @abstractmethod
    def errors(self, ddf: Tensor, seen: Tensor) -> Tensor:
        """How far each item is from fitting, ``(B)``.

        Args:
            ddf: ``(B, D, *spatial)`` in voxels.
            seen: where both images are valid, ``(B, 1, *spatial)``; nothing else counts.
        """

    @abstractmethod
    def pull(self, ddf: Tensor, seen: Tensor, scale: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Where each voxel should go, and the errors.

        Args:
            ddf: ``(B, D, *spatial)`` in voxels.
            seen: ``(B, 1, *spatial)``.
            scale: the finest voxel side over that of each axis, ``(1, D, 1, …)``.
            sigma: of the Gaussian, in voxels, that smooths the pull.

        Returns:
            ``(B, D, *spatial)`` in voxels, no vector longer than 1 in those of the finest axis, and ``(B)``.
        """


@dataclass(frozen=True, eq=False)
class _Channels(Guide):
    """Channels of both images on one grid.

    Attributes:
        moving: ``(B, C, *spatial)``.
        fixed: same shape.
    """

    spread: ClassVar[float] = 0.0
    moving: Tensor
    fixed: Tensor

    def resized(self, size: Sequence[int]) -> Guide:
        """See :py:meth:`Guide.resized`."""
        return replace(self, moving=resize(self.moving, size), fixed=resize(self.fixed, size))

    def items(self, chosen: Sequence[int]) -> Guide:
        """See :py:meth:`Guide.items`."""
        return replace(self, moving=self.moving[chosen], fixed=self.fixed[chosen])

    def cut(self, axis: int, index: int) -> Guide:
        """See :py:meth:`Guide.cut`."""
        moving, fixed = (side.select(axis + 2, index) for side in (self.moving, self.fixed))
        return replace(self, moving=moving, fixed=fixed)

    def errors(self, ddf: Tensor, seen: Tensor) -> Tensor:
        """See :py:meth:`Guide.errors`."""
        return self.compare(self._warped(ddf), seen)[0]

    def pull(self, ddf: Tensor, seen: Tensor, scale: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """See :py:meth:`Guide.pull`."""
        warped, sigma = self._warped(ddf), max(sigma, self.spread)
        errors, slope = self.compare(warped, seen)
        downhill = torch.zeros_like(ddf)
        for raises, channel in zip(slope.split(1, dim=1), warped.split(1, dim=1), strict=True):  # all take more memory
            for axis in range(2, warped.dim()):
                downhill[:, axis - 2 : axis - 1] -= raises * torch.gradient(channel, dim=axis)[0]
        force = smooth(downhill * scale**2, sigma)
        return force / longest(force / scale).clamp(min=self.full(sigma)), errors

    def _warped(self, ddf: Tensor) -> Tensor:
        return sample(self.moving, identity_grid(ddf) + ddf)

    def full(self, sigma: float) -> float:
        """A force that counts as a full pull; weaker ones pull less."""
        return TINY

    @abstractmethod
    def compare(self, warped: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Errors ``(B)``, and the slope ``(B, C, *spatial)`` along which the warped channels raise them."""


@dataclass(frozen=True, eq=False)
class LabelGuide(_Channels):
    """Soft Dice of labels, one channel each with the share of each voxel that has the label.

    Labels count by their sizes, so that the outline of a small one pulls as strongly as that of a large one.
    """

    spread: ClassVar[float] = SPREAD

    def full(self, sigma: float) -> float:
        """What the edge of a label that is more than a voxel away comes to once it is smoothed."""
        return 1 / (max(sigma, 1.0) * (2 * torch.pi) ** 0.5)

    def compare(self, warped: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """See :py:meth:`_Channels.compare`."""
        weights = seen.flatten(2).mT.to(warped)

        def total(channels: Tensor) -> Tensor:
            return (channels.flatten(2) @ weights)[..., 0]

        pairs = zip(warped.split(1, dim=1), self.fixed.split(1, dim=1), strict=True)
        sizes = total(warped) + total(self.fixed)
        both = 2 * torch.cat([total(one * other) for one, other in pairs], dim=1)
        whole = sizes.sum(1)
        errors = torch.where(whole > 0, 1 - both.sum(1) / whole.clamp(min=TINY), 0.0)
        dice = (both / sizes.clamp(min=TINY)).reshape(*sizes.shape, *[1] * (warped.dim() - 2))
        return errors, torch.sub(dice, self.fixed, alpha=2).mul_(seen)


@dataclass(frozen=True, eq=False)
class ChannelGuide(_Channels):
    """Further channels of both images, or features of them, compared by a loss.

    Attributes:
        loss: of one channel ``(B, 1, *spatial)`` of each and where they count, ``(B)``; the mean over the channels
            counts. By default the mean squared difference.
    """

    loss: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None

    def compare(self, warped: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """See :py:meth:`_Channels.compare`."""
        if self.loss is None:
            difference = only_valid(warped - self.fixed, seen)
            return masked_mean(difference.square(), seen, each=True), difference
        with torch.enable_grad():
            leaf = warped.detach().requires_grad_()
            pairs = zip(leaf.split(1, dim=1), self.fixed.split(1, dim=1), strict=True)
            errors = torch.stack([self.loss(one, other, seen) for one, other in pairs]).mean(0)
            (slope,) = torch.autograd.grad(errors.sum(), leaf)
        return errors.detach(), slope


@dataclass(frozen=True, eq=False)
class PointGuide(Guide):
    """Landmarks that lie at the same places of both images.

    Attributes:
        moving: of each item ``(N, D)`` in voxels of the moving image.
        fixed: the same of the fixed image.
        trust: of each item ``(N)`` in [0, 1], how much each landmark pulls.
        size: voxels along each axis.
    """

    moving: Sequence[Tensor]
    fixed: Sequence[Tensor]
    trust: Sequence[Tensor]
    size: Sequence[int]

    def resized(self, size: Sequence[int]) -> Guide:
        """See :py:meth:`Guide.resized`."""
        factors = [n / m for n, m in zip(size, self.size, strict=True)]

        def placed(points: Tensor) -> Tensor:
            return (points + 0.5) * torch.tensor(factors).to(points) - 0.5

        sides = [[placed(points) for points in side] for side in (self.moving, self.fixed)]
        return replace(self, moving=sides[0], fixed=sides[1], size=tuple(size))

    def items(self, chosen: Sequence[int]) -> Guide:
        """See :py:meth:`Guide.items`."""
        moving, fixed, trust = ([part[i] for i in chosen] for part in (self.moving, self.fixed, self.trust))
        return replace(self, moving=moving, fixed=fixed, trust=trust)

    def cut(self, axis: int, index: int) -> Guide:
        """The landmarks whose place in the fixed image is nearest to this slice."""
        kept = [i for i in range(len(self.size)) if i != axis]
        there = [(points[:, axis].round() == index) for points in self.fixed]
        sides = [[p[t][:, kept] for p, t in zip(side, there, strict=True)] for side in (self.moving, self.fixed)]
        trust = [p[t] for p, t in zip(self.trust, there, strict=True)]
        size = tuple(self.size[i] for i in kept)
        return replace(self, moving=sides[0], fixed=sides[1], trust=trust, size=size)

    def left(self, ddf: Tensor) -> list[Tensor]:
        """Of each item the vectors ``(N, D)`` in voxels from where the landmarks lead to where they should."""
        zipped = zip(ddf, self.moving, self.fixed, strict=True)
        return [moving - fixed - sample_at(field, fixed).T for field, moving, fixed in zipped]

    def errors(self, ddf: Tensor, seen: Tensor) -> Tensor:
        """Mean distance in voxels, weighted by trust."""
        return self._errors(self.left(ddf), torch.ones(len(self.size)).to(ddf))

    def pull(self, ddf: Tensor, seen: Tensor, scale: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """See :py:meth:`Guide.pull`; landmarks that lie close together pull together."""
        sides, sigma = scale.flatten(), max(sigma, SPREAD)
        left = self.left(ddf)
        lengths = [(vectors / sides).norm(dim=1, keepdim=True) for vectors in left]
        steps = [vectors / length.clamp(min=1) for vectors, length in zip(left, lengths, strict=True)]
        parts = zip(steps, self.trust, self.fixed, strict=True)
        spread = smooth(torch.stack([self._scattered(*part, like=ddf[0]) for part in parts]), sigma)
        alone = smooth(self._middle(ddf), sigma).amax()
        return spread[:, :-1] / spread[:, -1:].clamp(min=float(alone)), self._errors(left, sides)

    def _errors(self, left: Sequence[Tensor], sides: Tensor) -> Tensor:
        found = []
        for vectors, trust in zip(left, self.trust, strict=True):
            total = trust.sum().clamp(min=TINY)
            found.append(((vectors / sides).norm(dim=1) * trust).sum() / total)
        return torch.stack(found)

    def _scattered(self, vectors: Tensor, trust: Tensor, places: Tensor, like: Tensor) -> Tensor:
        """Vectors and trust ``(D + 1, *spatial)``, shared out to the voxels around each place."""
        values = torch.cat([vectors * trust[:, None], trust[:, None]], dim=1)
        grid = values.new_zeros(like[0].numel(), values.shape[1])
        low = places.floor()
        for corner in itertools.product((0, 1), repeat=len(self.size)):
            index = low + torch.tensor(corner).to(low)
            share = (1 - (places - index).abs()).prod(1, keepdim=True)
            flat = torch.zeros_like(index[:, 0], dtype=torch.long)
            for axis, n in enumerate(self.size):
                flat = flat * n + index[:, axis].long().clamp(0, n - 1)
            grid.index_add_(0, flat, values * share)
        return grid.T.reshape(-1, *self.size)

    def _middle(self, like: Tensor) -> Tensor:
        """1 in the middle voxel, 0 elsewhere."""
        one = like.new_zeros(1, 1, *self.size)
        one[(0, 0, *(n // 2 for n in self.size))] = 1
        return one


def longest(vectors: Tensor) -> Tensor:
    """Length of the longest vector of each item ``(B, D, *spatial)``, shaped to divide it."""
    squares = vectors.square().sum(dim=1, keepdim=True)  # a norm over a short axis takes ten times as long
    return squares.amax(dim=tuple(range(2, vectors.dim())), keepdim=True).sqrt()
