"""A loss for images of different modalities."""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .masked import SMALLEST, as_weights, masked_mean, only_valid


class MINDSSCLoss(nn.Module):
    """Mean squared difference of self-similarity contexts, which do not depend on what intensities mean.

    Heinrich et al., "Towards realtime multimodal fusion for image-guided interventions using self-similarities",
    MICCAI 2013. At each voxel the descriptor compares the patches around its neighbours with each other, two that lie
    along different axes at a time: 12 comparisons in 3-D, 4 in 2-D. It is the same for an image and any linear map of
    its intensities, inversion included.

    Args:
        radius: of the patches in voxels.
        dilation: distance in voxels of the neighbours from the voxel.

    Raises:
        ValueError: when one is not at least 1.
    """

    def __init__(self, radius: int = 2, dilation: int = 2) -> None:
        super().__init__()
        if radius < 1 or dilation < 1:
            raise ValueError(f"radius and dilation must be at least 1 voxel, got {radius} and {dilation}.")
        self.radius = radius
        self.dilation = dilation

    def extra_repr(self) -> str:
        """What the module's own line doesn't show."""
        return f"radius={self.radius}, dilation={self.dilation}"

    def descriptor(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Self-similarity contexts in (0, 1].

        Args:
            image: ``(B, C, *spatial)``.
            mask: weights ``(B, 1, *spatial)`` in [0, 1] or bool; only pairs of valid voxels count in a patch. None for
                valid everywhere.

        Returns:
            ``(B, C x comparisons, *spatial)``; 1 for a comparison of patches without a valid pair.

        Raises:
            ValueError: when the mask has another shape.
        """
        if mask is None:
            distance = torch.stack([self._patch_mean((a - b) ** 2) for a, b in self._compared(image)], dim=2)
            distance = distance - distance.amin(2, keepdim=True)
            variance = distance.mean(2, keepdim=True)
            usual = variance.mean(tuple(range(2, variance.dim())), keepdim=True)
            return _similarity(distance, variance, usual).flatten(1, 2)
        weights = as_weights(mask, image)
        return self._masked_descriptor(image, weights, self._patch_weights(weights)).flatten(1, 2)

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None, each: bool = False) -> Tensor:
        """How unlike two images are.

        Args:
            prediction: ``(B, C, *spatial)``.
            target: same shape.
            mask: weights ``(B, 1, *spatial)`` in [0, 1] or bool of where both images are valid; None for everywhere.
            each: the loss of each item, ``(B)``.

        Returns:
            scalar in [0, 1), or ``(B)``: the mean over the valid voxels and, of their comparisons, those that have a
            valid pair.

        Raises:
            ValueError: when the mask has another shape.
        """
        if mask is None:
            squares = (self.descriptor(prediction) - self.descriptor(target)).square()
            return squares.flatten(1).mean(1) if each else squares.mean()
        weights = as_weights(mask, prediction)
        patches = self._patch_weights(weights)
        first, second = (self._masked_descriptor(image, weights, patches) for image in (prediction, target))
        return masked_mean((first - second).square(), weights.unsqueeze(2) * (patches > SMALLEST), each)

    def _masked_descriptor(self, image: Tensor, weights: Tensor, patches: Tensor) -> Tensor:
        """``(B, C, comparisons, *spatial)`` of valid voxels, given the weights of the patches."""
        pairs = zip(self._compared(only_valid(image, weights)), self._compared(weights), strict=True)
        squares = [self._patch_mean((a - b) ** 2 * weight_a * weight_b) for (a, b), (weight_a, weight_b) in pairs]
        distance = torch.stack(squares, dim=2) / patches.clamp(min=SMALLEST)
        there = patches > SMALLEST
        nearest = torch.where(there, distance, torch.inf).amin(2, keepdim=True)
        distance = torch.where(there, distance - nearest, 0.0)
        variance = distance.sum(2, keepdim=True) / there.sum(2, keepdim=True).clamp(min=1)
        voxels = weights.unsqueeze(2) * there.any(2, keepdim=True)
        axes = tuple(range(2, variance.dim()))
        usual = (voxels * variance).sum(axes, keepdim=True) / voxels.sum(axes, keepdim=True).clamp(min=SMALLEST)
        return _similarity(distance, variance, usual)

    def _patch_weights(self, weights: Tensor) -> Tensor:
        """Mean weight of the pairs of each comparison, ``(B, 1, comparisons, *spatial)``."""
        return torch.stack([self._patch_mean(a * b) for a, b in self._compared(weights)], dim=2)

    def _compared(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The image at the two neighbours of each voxel, for each two along different axes."""
        dims, edge = image.dim() - 2, self.dilation
        padded = F.pad(image, [edge] * (2 * dims), mode="replicate")
        neighbours = []
        for axis in range(dims):
            for sign in (-1, 1):
                shifted = padded
                for other in range(dims):
                    begin = edge + (sign * edge if other == axis else 0)
                    shifted = shifted.narrow(other + 2, begin, image.shape[other + 2])
                neighbours.append((axis, shifted))
        return [(first, second) for (a, first), (b, second) in combinations(neighbours, 2) if a != b]

    def _patch_mean(self, image: Tensor) -> Tensor:
        dims = image.dim() - 2
        pool = F.avg_pool2d if dims == 2 else F.avg_pool3d
        return pool(F.pad(image, [self.radius] * (2 * dims), mode="replicate"), 2 * self.radius + 1, stride=1)


def _similarity(distance: Tensor, variance: Tensor, usual: Tensor) -> Tensor:
    """Of distances from the nearest, relative to their mean, which is kept near that of the whole image."""
    variance = torch.minimum(torch.maximum(variance, 1e-3 * usual), 1e3 * usual)
    return torch.exp(-distance / variance.clamp(min=torch.finfo(distance.dtype).tiny))
