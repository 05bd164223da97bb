"""Filters along one axis after another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def along(axis: int, matrix: Tensor, tensor: Tensor) -> Tensor:
    """A matrix ``(M, N)`` applied to an axis of N elements, which then has M.

    For a filter of some voxels on a CPU this takes a fifth of a convolution's time, and little memory: a convolution
    pads its one channel to sixteen.
    """
    if axis == tensor.dim() - 1:
        return tensor @ matrix.T
    before, after = tensor.shape[:axis], tensor.shape[axis + 1 :]
    return (matrix @ tensor.reshape(before.numel(), -1, after.numel())).reshape(*before, -1, *after)


def windows(kernel: Tensor, size: int, beyond: int = 0) -> Tensor:
    """The matrix of weighted sums under a kernel ``(K)`` at each place, ``(size + 2 * beyond - K + 1, size)``.

    Args:
        kernel: weights.
        size: elements of the axis.
        beyond: by so many a place may lie outside, where the border's value holds.
    """
    begins = torch.arange(-beyond, size + beyond - len(kernel) + 1, device=kernel.device)
    places = (begins[:, None] + torch.arange(len(kernel), device=kernel.device)).clamp(0, size - 1)
    return torch.einsum("k,rks->rs", kernel, torch.eye(size).to(kernel)[places])


def smooth(tensor: Tensor, sigma: float | Sequence[float]) -> Tensor:
    """Gaussian filter of ``(B, C, *spatial)``, border values repeated.

    Args:
        tensor: to smooth.
        sigma: standard deviation in voxels, one for all axes or one each; 0 leaves an axis as it is.
    """
    dims = tensor.dim() - 2
    sigmas = [float(sigma)] * dims if isinstance(sigma, (int, float)) else list(sigma)
    for axis, width in enumerate(sigmas, start=2):
        size = tensor.shape[axis]
        if width > 0 and size > 1:
            tensor = along(axis, _gaussian_matrix(width, size).to(tensor), tensor)
    return tensor


@lru_cache(maxsize=64)
def _gaussian_matrix(sigma: float, size: int) -> Tensor:
    kernel = _gaussian(sigma)
    return windows(kernel, size, len(kernel) // 2).float()


def _gaussian(sigma: float) -> Tensor:
    """The Gaussian's integral over each voxel, to four standard deviations, in sum 1."""
    reach = int(max(4.0 * sigma, 0.5) + 0.5)
    edges = (torch.arange(-reach, reach + 2, dtype=torch.float64) - 0.5) / (sigma * 2**0.5)
    kernel = torch.erf(edges).diff() / 2
    return kernel / kernel.sum()
