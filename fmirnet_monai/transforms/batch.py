"""Random changes of whole batches of pairs, on the device where they lie.

Each is called with a dictionary of tensors ``(B, C, *spatial)``, 2-D or 3-D, and gives a new one; a key that the batch
lacks is left out. Where the order of sides matters, the first half of the channels belongs to the moving image and the
other to the fixed one, as in a network's input. All draw from torch's generators, item by item, so that
``torch.manual_seed`` makes a run repeatable, and none waits for the device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fmirnet_monai.spatial.field import identity_grid, sample, warp

Batch = dict[str, Tensor]
Change = Callable[[Tensor, bool], Tensor]
"""Of a batch's tensor, and whether it is a displacement field."""


class BatchTransform(ABC):
    """Base of the changes of a batch.

    Args:
        keys: tensors to change together.
        prob: probability that an item is changed.
        field_key: the key whose tensors are displacement fields ``(B, D, *spatial)``: their vectors change, too.

    Raises:
        ValueError: when ``prob`` is not between 0 and 1.
    """

    def __init__(self, keys: str | Sequence[str], prob: float = 1.0, field_key: str | None = None) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"prob must lie between 0 and 1, got {prob}.")
        self.keys = [keys] if isinstance(keys, str) else list(keys)
        self.prob = prob
        self.field_key = field_key

    def __call__(self, batch: Mapping[str, Tensor]) -> Batch:
        """The changed batch."""
        present = [key for key in self.keys if key in batch] or self.keys[:1]  # whose absence is then named
        like = batch[present[0]]
        chosen = torch.rand(len(like), device=like.device) < self.prob
        changes = self.changes(like)
        changed = {key: changes(batch[key], key == self.field_key) for key in present}
        return {**batch, **{key: _where(chosen, values, batch[key]) for key, values in changed.items()}}

    @abstractmethod
    def changes(self, like: Tensor) -> Change:
        """Draw for a batch like this, and give what changes each of its tensors alike."""


class RandSwapBatch(BatchTransform):
    """Exchange the moving and the fixed side."""

    def changes(self, like: Tensor) -> Change:
        """Nothing to draw."""
        return lambda tensor, is_field: torch.full_like(tensor, torch.nan) if is_field else _swapped(tensor)


class RandFlipBatch(BatchTransform):
    """Flip along each axis, or one, with the probability ``prob``.

    Args:
        keys: tensors to flip together.
        prob: of a flip, of each axis by itself.
        axes: spatial axes to flip along, all by default.
        field_key: see :py:class:`BatchTransform`.
    """

    def __init__(
        self,
        keys: str | Sequence[str],
        prob: float = 0.5,
        axes: Sequence[int] | None = None,
        field_key: str | None = None,
    ) -> None:
        super().__init__(keys, field_key=field_key)
        self.flip_prob = prob
        self.axes = axes

    def changes(self, like: Tensor) -> Change:
        """Draw for each axis."""
        axes = range(like.dim() - 2) if self.axes is None else self.axes
        flips = {axis + 2: torch.rand(len(like), device=like.device) < self.flip_prob for axis in axes}

        def flipped(tensor: Tensor, is_field: bool) -> Tensor:
            for axis, flip in flips.items():
                mirrored = tensor.flip(axis)
                if is_field:
                    mirrored[:, axis - 2] = -mirrored[:, axis - 2]
                tensor = _where(flip, mirrored, tensor)
            return tensor

        return flipped


class RandTurnBatch(BatchTransform):
    """Turn by one, two or three quarters in the plane of the first two axes, which must be equally long."""

    def changes(self, like: Tensor) -> Change:
        """Draw the quarters."""
        if like.shape[2] != like.shape[3]:
            raise ValueError(f"quarter turns need square images, got {list(like.shape[2:])}.")
        quarters = torch.randint(1, 4, (len(like),), device=like.device)

        def turned(tensor: Tensor, is_field: bool) -> Tensor:
            result = quarter = tensor
            for number in (1, 2, 3):
                quarter = quarter.rot90(1, (2, 3))
                if is_field:
                    quarter = torch.cat([-quarter[:, 1:2], quarter[:, :1], quarter[:, 2:]], dim=1)
                result = _where(quarters == number, quarter, result)
            return result

        return turned


class RandItselfBatch(BatchTransform):
    """Put the fixed side in the moving one's place, which :py:class:`RandSpaceBatch` then deforms: a known solution."""

    def changes(self, like: Tensor) -> Change:
        """Nothing to draw."""
        return lambda tensor, _: torch.cat([tensor.chunk(2, dim=1)[1]] * 2, dim=1)


@dataclass
class RandKnownFieldBatch:
    """Show the moving side, smoothly deformed, as the fixed one: the displacement field is known then.

    FlowNet and the first registration networks learnt from such pairs (Dosovitskiy et al., ICCV 2015; Sokooti et al.,
    MICCAI 2017).

    Args:
        keys: pairs to change together.
        mode: interpolation per key, ``"bilinear"`` or ``"nearest"`` (labels).
        field_key: gets the fields ``(B, D, *spatial)`` in voxels; where a pair stays as it is, those that the batch
            has, otherwise NaN.
        prob: of a pair.
        deformation: standard deviation of the displacements in voxels, the least and the most.
        control_points: of a deformation along each axis, the fewest and the most.
    """

    keys: Sequence[str]
    mode: Sequence[str]
    field_key: str = "field"
    prob: float = 1.0
    deformation: Sequence[float] = (1.0, 6.0)
    control_points: Sequence[int] = (4, 7)

    def __call__(self, batch: Mapping[str, Tensor]) -> Batch:
        """The batch with ``field_key``."""
        like = batch[self.keys[0]]
        count, size = len(like), like.shape[2:]
        noise = smooth_noise((count, len(size), *size), _between(self.control_points), like.float())
        field = noise * uniform(self.deformation, (count, *[1] * (len(size) + 1)), noise)
        chosen = torch.rand(count, device=like.device) < self.prob
        result = dict(batch)
        for key, mode in zip(self.keys, self.mode, strict=True):
            if key in batch:
                moving, _ = batch[key].chunk(2, dim=1)
                warped = warp(moving.float(), field, mode).to(moving)
                result[key] = _where(chosen, torch.cat([moving, warped], dim=1), batch[key])
        known = batch.get(self.field_key, torch.full_like(field, torch.nan))
        return {**result, self.field_key: _where(chosen, field, known)}


@dataclass
class RandShapesBatch:
    """Put generated shapes in the place of some pairs: the classes of smooth noise, each with an intensity of its own.

    Both sides are one image, see :py:class:`RandItselfBatch`. After SynthMorph (Hoffmann et al., IEEE TMI 2022).

    Args:
        image_key: pairs of images, one channel a side.
        label_key: pairs of label maps, changed where the batch has them.
        share: of the batch.
        classes: the fewest and the most of an image.
        control_points: along each axis of the noise, the fewest and the most.
    """

    image_key: str = "image"
    label_key: str = "labels"
    share: float = 0.2
    classes: Sequence[int] = (6, 19)
    control_points: Sequence[int] = (4, 9)

    def __call__(self, batch: Mapping[str, Tensor]) -> Batch:
        """The batch, its first items replaced."""
        image = batch[self.image_key]
        count = round(self.share * len(image))
        if count == 0:
            return dict(batch)
        noise = smooth_noise((count, _between(self.classes), *image.shape[2:]), _between(self.control_points), image)
        classes = noise.argmax(1)
        shades = torch.rand(noise.shape[:2], device=image.device, dtype=image.dtype)
        shapes = shades.gather(1, classes.flatten(1)).view_as(classes)
        result = {**batch, self.image_key: _replaced(image, shapes)}
        if self.label_key in batch:
            result[self.label_key] = _replaced(batch[self.label_key], classes)
        return result


@dataclass
class RandSpaceBatch:
    """Show pairs through a random window, the moving side moved and deformed a little besides.

    Each pair is seen turned, zoomed, stretched and shifted, both sides alike. The moving side has a small affine motion
    of its own and some a smooth deformation; a pair of one image twice always has one, and a larger one. Beyond the
    images all is 0.

    Args:
        keys: pairs to show together.
        mode: interpolation per key, ``"bilinear"`` or ``"nearest"`` (labels).
        spatial_size: voxels of the window.
        zoom: the share of the images' extent along each axis that the window sees, the least and the most.
        stretch: of each axis by a factor of ``exp(±stretch)``.
        rotation: at most so many degrees, about each axis in 3-D.
        shift: at most this share of half the images' extent.
        own_affine: largest deviation of the moving side's matrix from the identity, of every second pair.
        own_shift: the moving side's own shift, as ``shift``.
        deformation: standard deviation in voxels of the moving side's own, the least and the most.
        deformed: share of the pairs that have one.
        deformation_itself: the same of a pair of one image twice.
        control_points: of a deformation along each axis, the fewest and the most.
    """

    keys: Sequence[str]
    mode: Sequence[str]
    spatial_size: Sequence[int]
    zoom: Sequence[float] = (0.72, 1.1)
    stretch: float = 0.12
    rotation: float = 20.0
    shift: float = 0.2
    own_affine: float = 0.04
    own_shift: float = 0.03
    deformation: Sequence[float] = (0.5, 2.5)
    deformed: float = 0.3
    deformation_itself: Sequence[float] = (1.0, 6.0)
    control_points: Sequence[int] = (4, 7)

    def __call__(self, batch: Mapping[str, Tensor]) -> Batch:
        """The batch in windows of ``spatial_size``."""
        sides = self.places(batch[self.keys[0]])
        result = dict(batch)
        for key, mode in zip(self.keys, self.mode, strict=True):
            if key in batch:
                halves = zip(batch[key].float().chunk(2, dim=1), sides, strict=True)
                result[key] = torch.cat([sample(half, places, mode, "zeros") for half, places in halves], dim=1)
        return result

    def places(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Where the window's voxels lie in the moving and in the fixed image, ``(B, D, *spatial_size)`` in voxels."""
        count, dims = len(image), image.dim() - 2
        window = image.new_zeros(1, 1, *self.spatial_size, dtype=torch.float)
        extent = torch.tensor(image.shape[2:]).to(window) / 2  # from the centre
        half = torch.tensor(self.spatial_size).to(window) / 2
        column = (1, dims, *[1] * dims)
        voxel = (extent / half).view(column)  # of the window, in the image's
        offsets = (identity_grid(window) + 0.5 - half.view(column)) * voxel
        zoom = uniform([math.log(limit) for limit in self.zoom], (count, 1), window)
        scale = (zoom + uniform([-self.stretch, self.stretch], (count, dims), window)).exp()
        matrix = rotations(count, dims, self.rotation, window) * scale[:, None]
        shift = uniform([-self.shift, self.shift], (count, dims), window)
        some = torch.rand(count, 1, 1, device=image.device) < 0.5
        own = uniform([-self.own_affine, self.own_affine], (count, dims, dims), window) * some
        own = torch.eye(dims).to(window) + own
        own_shift = shift + uniform([-self.own_shift, self.own_shift], (count, dims), window)
        noise = smooth_noise((count, dims, *self.spatial_size), _between(self.control_points), window)
        deformation = noise * self.strengths(image, window).view(-1, *[1] * (dims + 1)) * voxel

        def placed(transform: Tensor, by: Tensor) -> Tensor:
            moved = torch.einsum("bij,bj...->bi...", transform, offsets.expand(count, *offsets.shape[1:]))
            return moved + (extent - 0.5 + by * extent).view(count, dims, *[1] * dims)

        return placed(own @ matrix, own_shift) + deformation, placed(matrix, shift)

    def strengths(self, image: Tensor, window: Tensor) -> Tensor:
        """Of each pair's deformation, in voxels of the window, ``(B)``."""
        moving, fixed = image.chunk(2, dim=1)
        itself = (moving == fixed).flatten(1).all(1)
        usual = uniform(self.deformation, (len(image),), window)
        usual = usual * (torch.rand(len(image), device=image.device) < self.deformed)
        return torch.where(itself, uniform(self.deformation_itself, (len(image),), window), usual)


@dataclass
class RandIntensityBatch:
    """Show pairs in another light, both sides alike, each with noise and a slowly varying gain of its own.

    Args:
        image_key: pairs of images in [0, 1], where they stay.
        gamma: exponents up to ``exp(±gamma)``.
        gain: factor, the least and the most.
        offset: added, at most so much.
        invert: share of the pairs whose black and white are exchanged.
        bias: largest standard deviation of the slowly varying gain.
        noise: largest standard deviation of the noise.
    """

    image_key: str = "image"
    gamma: float = 0.5
    gain: Sequence[float] = (0.8, 1.15)
    offset: float = 0.08
    invert: float = 0.15
    bias: float = 0.12
    noise: float = 0.03

    def __call__(self, batch: Mapping[str, Tensor]) -> Batch:
        """The batch, its images changed."""
        return {**batch, self.image_key: self.changed(batch[self.image_key])}

    def changed(self, pair: Tensor) -> Tensor:
        """A batch of pairs ``(B, 2 C, *spatial)``."""
        each = (len(pair), *[1] * (pair.dim() - 1))
        values = pair.clamp(0, 1) ** uniform([-self.gamma, self.gamma], each, pair).exp()
        values = torch.where(uniform([0, 1], each, pair) < self.invert, 1 - values, values)
        bias = 1 + uniform([0, self.bias], each, pair) * smooth_noise((len(pair), 2, *pair.shape[2:]), 4, pair)
        bias = bias.repeat_interleave(pair.shape[1] // 2, dim=1)
        gain, offset = uniform(self.gain, each, pair), uniform([-self.offset, self.offset], each, pair)
        noise = uniform([0, self.noise], each, pair) * torch.randn_like(pair)
        return (values * bias * gain + offset + noise).clamp(0, 1)


def uniform(limits: Sequence[float], size: Sequence[int], like: Tensor) -> Tensor:
    """Numbers drawn evenly between two limits, on the device and in the precision of ``like``."""
    return limits[0] + (limits[1] - limits[0]) * torch.rand(*size, device=like.device, dtype=like.dtype)


def smooth_noise(shape: Sequence[int], control_points: int, like: Tensor) -> Tensor:
    """Normally distributed values at a few points along each axis, interpolated to ``shape`` ``(B, C, *spatial)``."""
    dims = len(shape) - 2
    coarse = torch.randn(*shape[:2], *[control_points] * dims, device=like.device, dtype=like.dtype)
    return F.interpolate(coarse, tuple(shape[2:]), mode="bilinear" if dims == 2 else "trilinear", align_corners=True)


def rotations(count: int, dims: int, degrees: float, like: Tensor) -> Tensor:
    """Random rotations about each axis by at most so many degrees, ``(count, dims, dims)``."""
    matrix = torch.eye(dims).to(like).expand(count, dims, dims)
    for first in range(dims):
        for second in range(first + 1, dims):
            angle = torch.deg2rad(uniform([-degrees, degrees], (count,), like))
            turn = torch.eye(dims).to(like).repeat(count, 1, 1)
            turn[:, first, first] = turn[:, second, second] = angle.cos()
            turn[:, second, first] = angle.sin()
            turn[:, first, second] = -angle.sin()
            matrix = matrix @ turn
    return matrix


def _between(limits: Sequence[int]) -> int:
    """A whole number between two, both included."""
    return int(torch.randint(limits[0], limits[1] + 1, ()))  # on the CPU, whose generator is seeded alike


def _replaced(pair: Tensor, side: Tensor) -> Tensor:
    """The batch with the first items' both sides replaced by ``(count, *spatial)``."""
    both = side.to(pair)[:, None].expand(-1, pair.shape[1], *[-1] * (side.dim() - 1))
    return torch.cat([both, pair[len(side) :]])


def _swapped(pair: Tensor) -> Tensor:
    return pair.roll(pair.shape[1] // 2, 1)


def _where(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Of each item ``(B, …)`` the one or the other."""
    return torch.where(chosen.view(-1, *[1] * (one.dim() - 1)), one, other)
