"""A small fully convolutional network for segmentation, in the form of FCN-8s."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.networks.layers import Conv, Pool
from torch import Tensor, nn


class FCN(nn.Module):
    """FCN-8s (Long, Shelhamer and Darrell, CVPR 2015) with a small backbone in place of VGG-16.

    Five stages of two convolutions and a pooling; a 1 x 1 convolution scores the classes after each of the last
    three, at 1/8, 1/16 and 1/32 of the resolution; the scores are upsampled, the coarser ones by two each, and added,
    and their sum by eight. Upsampling is linear, which the paper's transposed convolutions start from.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes, the background among them.
        channels: of the five stages.
        dropout: probability in the two layers before the coarsest score.

    Raises:
        ValueError: when there are not five stages.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 2,
        channels: Sequence[int] = (16, 32, 64, 128, 128),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if len(channels) != 5:
            raise ValueError(f"channels must be those of five stages, got {tuple(channels)}.")
        conv, pool = Conv[Conv.CONV, spatial_dims], Pool[Pool.MAX, spatial_dims]
        widths = [in_channels, *channels]
        self.stages = nn.ModuleList(
            nn.Sequential(
                Convolution(spatial_dims, widths[i], widths[i + 1], act="relu", norm="batch"),
                Convolution(spatial_dims, widths[i + 1], widths[i + 1], act="relu", norm="batch"),
                pool(2, ceil_mode=True),
            )
            for i in range(5)
        )
        self.last = nn.Sequential(
            Convolution(spatial_dims, channels[4], channels[4], act="relu", norm="batch", dropout=dropout),
            Convolution(
                spatial_dims, channels[4], channels[4], kernel_size=1, act="relu", norm="batch", dropout=dropout
            ),
        )
        self.scores = nn.ModuleList(conv(width, out_channels, 1) for width in reversed(channels[2:]))
        self.mode = "bilinear" if spatial_dims == 2 else "trilinear"

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (logits).

        Args:
            x: image ``(B, C, *spatial)``, any size.

        Returns:
            ``(B, classes, *spatial)``.
        """
        features: list[Tensor] = []
        y = x
        for stage in self.stages:
            y = stage(y)
            features.append(y)
        total = self.last(y)
        for i, head in enumerate(self.scores):
            total = head(total) if i == 0 else self._upsampled(total, features[-1 - i]) + head(features[-1 - i])
        return self._upsampled(total, x)

    def _upsampled(self, scores: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(scores, size=like.shape[2:], mode=self.mode, align_corners=False)
