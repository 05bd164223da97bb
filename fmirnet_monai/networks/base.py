"""The one form of all registration networks: any size in, padded inside, and the field cropped after."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def channels_last(x: Tensor) -> Tensor:
    """``(B, channels, *spatial)`` with the channels of a voxel side by side in memory, as convolutions are fastest."""
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


def channels_last_gradient(x: Tensor) -> Tensor:
    """The tensor itself, whose gradient comes with the channels of a voxel side by side.

    That of a part of a concatenation is a view with gaps, for which torch's backward pass of a linear upsampling takes
    a way several times slower.
    """
    if not torch.jit.is_scripting() and not torch.compiler.is_compiling() and x.requires_grad:
        x.register_hook(channels_last)
    return x


def extend(x: Tensor, divisor: int) -> Tensor:
    """Repeat the last voxels of ``(B, channels, *spatial)`` until ``divisor`` divides each size."""
    padding: list[int] = []
    for size in x.shape[2:]:
        padding = [0, -size % divisor] + padding
    return F.pad(x, padding, mode="replicate")


def crop(x: Tensor, like: Tensor) -> Tensor:
    """The part of an extended tensor that lies on the grid of ``like``."""
    for axis in range(2, like.dim()):
        x = x.narrow(axis, 0, like.shape[axis])
    return x


class PairNetwork(nn.Module):
    """Base of the registration networks; a subclass estimates the field of a padded pair in :py:meth:`estimate`.

    Args:
        spatial_dims: D, 2 or 3.
        in_channels: C, channels of *one* image; the network's input has 2 C.
        divisor: :py:meth:`estimate` gets sizes that are multiples of it.

    Raises:
        ValueError: for another ``spatial_dims``.
    """

    def __init__(self, spatial_dims: int, in_channels: int, divisor: int) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        """Displacement field of an image pair.

        Args:
            x: ``(B, 2 C, *spatial)``, the moving image's channels first, intensities about [0, 1]; any size.

        Returns:
            ``(B, D, *spatial)`` in voxels: ``warp(moving, field)`` matches the fixed image.

        Raises:
            ValueError: when the number of channels or axes is not that of the constructor.
        """
        return crop(self.estimate(self.pad(x)), x)

    def estimate(self, pair: Tensor) -> Tensor:
        """Field ``(B, D, *spatial)`` in voxels of a pair ``(B, 2 C, *spatial)`` whose size ``divisor`` divides."""
        raise NotImplementedError  # abstract: TorchScript takes no ABC

    def pad(self, x: Tensor) -> Tensor:
        """Check the pair and repeat its last voxels until ``divisor`` divides each size."""
        if x.dim() != self.spatial_dims + 2 or x.shape[1] != 2 * self.in_channels:
            raise ValueError(
                f"x must have shape (batch, {2 * self.in_channels}, then {self.spatial_dims} spatial axes), "
                f"got {list(x.shape)}."
            )
        return channels_last(extend(x, self.divisor))

    def identity(self, like: Tensor) -> Tensor:
        """The field that moves nothing, ``(B, D, *spatial)`` on the grid of ``like``."""
        return like.new_zeros([like.shape[0], self.spatial_dims] + list(like.shape[2:]))
