"""Attention of the multiscale fusion module: one weight per element of a field, or one per scale."""

from __future__ import annotations

import torch
from monai.networks.layers import Conv
from torch import Tensor, nn


class SpatialAttention(nn.Module):
    """Weight a field element by element: ``W = sigmoid(conv(field))`` (Fig. 1(b) of the FMIRNet paper).

    Args:
        spatial_dims: D, 2 or 3.
        residual: give ``field + W * field``; otherwise ``W * field``.
    """

    def __init__(self, spatial_dims: int, residual: bool = True) -> None:
        super().__init__()
        self.conv = Conv[Conv.CONV, spatial_dims](spatial_dims, spatial_dims, 3, padding=1)
        self.residual = residual

    def forward(self, field: Tensor) -> Tensor:
        """Weighted field, shape and units of ``field`` ``(B, D, *spatial)``."""
        weighted = self.conv(field).sigmoid() * field
        return field + weighted if self.residual else weighted


class ScaleAttention(nn.Module):
    """One weight in (0, 2) for a scale's whole contribution, from its mean magnitude and that of the coarser field.

    This is channel attention over the scales (the FMIRNet paper's future work) in the form of a squeeze-and-excitation
    gate (Hu et al., CVPR 2018), taken scale by scale so that it also serves fields that are composed one after
    another. It starts at the weight 1, the plain sum.

    Args:
        hidden: width of the gate's hidden layer.
    """

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        last = nn.Linear(hidden, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.gate = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), last, nn.Sigmoid())

    def forward(self, coarser: Tensor, increment: Tensor) -> Tensor:
        """Weighted ``increment``; both arguments ``(B, D, *spatial)`` in voxels of the same grid."""
        squeezed = torch.stack([field.abs().flatten(1).mean(1) for field in (coarser, increment)], dim=1)
        weight = 2.0 * self.gate(squeezed)
        return increment * weight.reshape([-1] + [1] * (increment.dim() - 1))
