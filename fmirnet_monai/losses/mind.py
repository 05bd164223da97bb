"""A loss for images of different modalities."""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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

    def descriptor(self, image: Tensor) -> Tensor:
        """Self-similarity contexts in (0, 1] of ``(B, C, *spatial)``, as ``(B, C x comparisons, *spatial)``."""
        dims, size = image.dim() - 2, image.shape[2:]
        pool = F.avg_pool2d if dims == 2 else F.avg_pool3d
        edge = self.dilation
        padded = F.pad(image, [edge] * (2 * dims), mode="replicate")
        neighbours = []
        for axis in range(dims):
            for sign in (-1, 1):
                shifted = padded
                for other in range(dims):
                    begin = edge + (sign * edge if other == axis else 0)
                    shifted = shifted.narrow(other + 2, begin, size[other])
                neighbours.append((axis, shifted))
        distances = []
        for (first_axis, first), (second_axis, second) in combinations(neighbours, 2):
            if first_axis != second_axis:
                squares = F.pad((first - second) ** 2, [self.radius] * (2 * dims), mode="replicate")
                distances.append(pool(squares, 2 * self.radius + 1, stride=1))
        distance = torch.stack(distances, dim=2)
        distance = distance - distance.amin(2, keepdim=True)
        variance = distance.mean(2, keepdim=True)
        usual = variance.mean(tuple(range(2, variance.dim())), keepdim=True)
        variance = torch.minimum(torch.maximum(variance, 1e-3 * usual), 1e3 * usual)
        return torch.exp(-distance / variance.clamp(min=torch.finfo(image.dtype).tiny)).flatten(1, 2)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Scalar in [0, 1) for two images ``(B, C, *spatial)``."""
        return F.mse_loss(self.descriptor(prediction), self.descriptor(target))
