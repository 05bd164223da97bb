"""Local correlation of learnt features: where in the moving image does what the fixed image shows at a voxel lie?"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from torch import Tensor, nn

from fmirnet_monai.networks.blocks.resunet import LEAKY_RELU


class LocalCorrelation(nn.Module):
    """Cosine similarity of both images' features, the moving image shifted by every offset of a small cube.

    The cost volume of optical flow (Dosovitskiy et al., "FlowNet", ICCV 2015), small since the images are already
    warped by the coarser scales. One encoder serves both images.

    Args:
        spatial_dims: D, 2 or 3.
        in_channels: C, channels of one image.
        radius: largest offset in voxels along each axis.
        features: channels that are compared.

    Raises:
        ValueError: when ``radius`` is below 1.
    """

    def __init__(self, spatial_dims: int, in_channels: int, radius: int = 2, features: int = 8) -> None:
        super().__init__()
        if radius < 1:
            raise ValueError(f"radius must be at least 1, got {radius}.")
        self.in_channels = in_channels
        self.padding = [radius] * (2 * spatial_dims)
        self.offsets = [list(offset) for offset in product(range(2 * radius + 1), repeat=spatial_dims)]
        self.encoder = nn.Sequential(
            Convolution(spatial_dims, in_channels, 2 * features, act=LEAKY_RELU, norm=None),
            Convolution(spatial_dims, 2 * features, features, conv_only=True),
        )

    @property
    def out_channels(self) -> int:
        """Number of offsets, ``(2 radius + 1) ** D``."""
        return len(self.offsets)

    def forward(self, pair: Tensor) -> Tensor:
        """``(B, 2 C, *spatial)``, the moving image first, to ``(B, offsets, *spatial)`` in [-1, 1]."""
        moving = F.normalize(self.encoder(pair[:, : self.in_channels]), dim=1, eps=1e-3)
        fixed = F.normalize(self.encoder(pair[:, self.in_channels :]), dim=1, eps=1e-3)
        moving = F.pad(moving, self.padding, mode="replicate")
        similarity: list[Tensor] = []
        for offset in self.offsets:
            shifted = moving
            for axis, start in enumerate(offset):
                shifted = shifted.narrow(axis + 2, start, fixed.shape[axis + 2])
            similarity.append((shifted * fixed).sum(1))
        return torch.stack(similarity, dim=1)
