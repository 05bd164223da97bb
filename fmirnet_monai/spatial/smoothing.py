"""Filters along one axis after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

BLOCK = 32  # rows of a filter that are multiplied at a time: fewer hold fewer zeros, more keep a processor busy


@dataclass(frozen=True, eq=False)
class Filter:
    """Weighted sums around places of an axis, as a matrix that is 0 away from a band.

    For a filter of some voxels on a CPU the products with the band's blocks take a tenth of a convolution's time, and
    little memory: a convolution pads its one channel to sixteen. A GPU multiplies with all of the matrix.

    Attributes:
        matrix: ``(M, N)``, M sums of N elements each.
    """

    matrix: Tensor
    _blocks: dict[tuple[torch.device, torch.dtype], list[tuple[slice, Tensor]]] = field(
        default_factory=dict, init=False, repr=False
    )

    @cached_property
    def transposed(self) -> Filter:
        """From the gradient of the sums to that of the elements."""
        return Filter(self.matrix.T.contiguous())

    def blocks(self, like: Tensor) -> list[tuple[slice, Tensor]]:
        """Of some rows each the columns that are not all 0, and what stands there, of a tensor's type and device."""
        found = self._blocks.get((like.device, like.dtype), [])
        if not found:
            for rows in self.matrix.split(BLOCK if like.device.type == "cpu" else len(self.matrix)):
                places = rows.any(0).nonzero()
                columns = slice(int(places.min()), int(places.max()) + 1)
                found.append((columns, rows[:, columns].contiguous().to(like)))
            self._blocks[like.device, like.dtype] = found
        return found

    def along(self, axis: int, tensor: Tensor) -> Tensor:
        """The sums along an axis of N elements, which then has M."""
        return _Along.apply(tensor, self, axis)

    def product(self, axis: int, tensor: Tensor) -> Tensor:
        """:py:meth:`along`, of which no gradient is known."""
        before, after = tensor.shape[:axis], tensor.shape[axis + 1 :]
        elements = tensor.reshape(before.numel(), -1, *([after.numel()] if after else []))
        with torch.autocast(tensor.device.type, enabled=False):
            parts = [
                weights @ elements[:, columns] if after else elements[:, columns] @ weights.T
                for columns, weights in self.blocks(tensor)
            ]
        return torch.cat(parts, dim=1).reshape(*before, -1, *after)


class _Along(torch.autograd.Function):
    """Its gradient takes the same filter transposed, in the same blocks."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, kernel: Filter, axis: int) -> Tensor:
        ctx.kernel, ctx.axis = kernel, axis
        return kernel.product(axis, tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Along.apply(gradients[0], ctx.kernel.transposed, ctx.axis), None, None


def windows(kernel: Tensor, size: int, beyond: int = 0) -> Filter:
    """Weighted sums under a kernel ``(K)`` at each place, ``size + 2 * beyond - K + 1`` of them.

    Args:
        kernel: weights.
        size: elements of the axis.
        beyond: by so many a place may lie outside, where the border's value holds.
    """
    begins = torch.arange(-beyond, size + beyond - len(kernel) + 1)
    places = (begins[:, None] + torch.arange(len(kernel))).clamp(0, size - 1)
    return Filter(torch.einsum("k,rks->rs", kernel, torch.eye(size).to(kernel)[places]))


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
            tensor = _gaussian_filter(width, size).along(axis, tensor)
    return tensor


@lru_cache(maxsize=64)
def _gaussian_filter(sigma: float, size: int) -> Filter:
    kernel = _gaussian(sigma)
    return windows(kernel.float(), size, len(kernel) // 2)


def _gaussian(sigma: float) -> Tensor:
    """The Gaussian's integral over each voxel, to four standard deviations, in sum 1."""
    reach = int(max(4.0 * sigma, 0.5) + 0.5)
    edges = (torch.arange(-reach, reach + 2, dtype=torch.float64) - 0.5) / (sigma * 2**0.5)
    kernel = torch.erf(edges).diff() / 2
    return kernel / kernel.sum()
