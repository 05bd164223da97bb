"""A network's field averaged over the mirror images of a pair."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor, nn


class FlipAverage(nn.Module):
    """Mean of the fields that a network gives for a pair and its mirror images: 4 passes in 2-D, 8 in 3-D.

    Args:
        network: takes ``(B, 2 C, *spatial)`` and gives ``(B, D, *spatial)`` in voxels.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pair: Tensor) -> Tensor:
        """The mean field ``(B, D, *spatial)`` in voxels."""
        axes = range(pair.dim() - 2)
        flips = [flip for count in range(len(axes) + 1) for flip in combinations(axes, count)]
        fields = [self._flipped(pair, flip) for flip in flips]
        return torch.stack(fields).mean(0)

    def _flipped(self, pair: Tensor, flip: tuple[int, ...]) -> Tensor:
        """The field of the mirrored pair, mirrored back."""
        spatial = [axis + 2 for axis in flip]
        sign = torch.ones(pair.dim() - 2, device=pair.device)
        sign[list(flip)] = -1
        return self.network(pair.flip(spatial)).flip(spatial) * sign.view(1, -1, *[1] * (pair.dim() - 2))
