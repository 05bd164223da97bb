"""Local correlation of features: where in the moving image does what the fixed image shows at a voxel lie?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from torch import Tensor, nn

from fmirnet_monai.networks.blocks.resunet import LEAKY_RELU


def local_correlation(fixed: Tensor, moving: Tensor, radius: int = 1) -> Tensor:
    """Correlation of each voxel's features with those of the other image's neighbouring voxels.

    The cost volume of optical flow (Dosovitskiy et al., "FlowNet", ICCV 2015), small where the images are already
    warped by coarser scales.

    Args:
        fixed: features ``(B, K, *spatial)``, 2-D or 3-D.
        moving: same shape; beyond the border the nearest voxel's features hold.
        radius: largest offset in voxels along each axis.

    Returns:
        ``(B, (2 radius + 1) ** D, *spatial)``: means over the channels of ``fixed(x) * moving(x + offset)``, one per
        offset, the last axis's running fastest from ``-radius`` to ``radius``.
    """
    dims = fixed.dim() - 2
    side = 2 * radius + 1
    padded = F.pad(moving, [radius, radius] * dims, mode="replicate")
    maps: list[Tensor] = []
    for i in range(int(side**dims)):
        shifted, rest = padded, i
        for axis in range(dims + 1, 1, -1):
            shifted = shifted.narrow(axis, rest % side, fixed.shape[axis])
            rest = rest // side
        maps.append((fixed * shifted).mean(1))
    return torch.stack(maps, dim=1)


class LocalCorrelation(nn.Module):
    """Cosine similarity of learnt features of both images, one encoder for both, see :py:func:`local_correlation`.

    Args:
        spatial_dims: D, 2 or 3.
        in_channels: C, channels of one image.
        radius: largest offset in voxels along each axis, at least 1.
        features: channels that are compared.
    """

    def __init__(self, spatial_dims: int, in_channels: int, radius: int, features: int = 8) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.radius = radius
        self.out_channels = (2 * radius + 1) ** spatial_dims
        self.length = features**0.5  # so that a mean of products is a cosine
        self.encoder = nn.Sequential(
            Convolution(spatial_dims, in_channels, 2 * features, act=LEAKY_RELU, norm=None),
            Convolution(spatial_dims, 2 * features, features, conv_only=True),
        )

    def forward(self, pair: Tensor) -> Tensor:
        """``(B, 2 C, *spatial)``, the moving image first, to ``(B, out_channels, *spatial)`` in [-1, 1]."""
        return local_correlation(
            self._features(pair[:, self.in_channels :]), self._features(pair[:, : self.in_channels]), self.radius
        )

    def _features(self, image: Tensor) -> Tensor:
        features = self.encoder(image)
        # F.normalize, whose norm over an axis with others behind it takes 30 times as long on a CPU
        return features * (self.length * features.square().sum(1, keepdim=True).clamp_min(1e-6).rsqrt())
