"""Intensities to [0, 1], as what compares images wants them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmirnet_monai.spatial.image import plain

Intensity = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Window:
    """A range of intensities, such as Hounsfield units, to [0, 1]; what lies beyond it is clipped."""

    low: float
    high: float

    def __call__(self, image: Tensor) -> Tensor:
        """Any image ``(1, *spatial)``, as a plain tensor."""
        return ((plain(image).float() - self.low) / (self.high - self.low)).clamp(0, 1)


@dataclass(frozen=True)
class Percentiles:
    """Each image's own percentiles to [0, 1], for images without absolute intensities."""

    low: float = 0.5
    high: float = 99.5

    def __call__(self, image: Tensor) -> Tensor:
        """Any image ``(1, *spatial)``, as a plain tensor; one of a single value becomes 0."""
        values = plain(image).float()
        low, high = np.percentile(values.cpu().numpy(), (self.low, self.high))
        return Window(float(low), float(high))(values) if high > low else torch.zeros_like(values)


def seen_intensities(intensity: Intensity, values: Tensor, region: Tensor) -> Tensor:
    """An image ``(1, *spatial)`` in [0, 1], scaled by what stands in the region alone; 0 elsewhere."""
    image = plain(values)
    if region.all():
        return plain(intensity(image))
    scaled = torch.zeros(image.shape, device=image.device)
    if region.any():  # selected as a list, for indices by axis take six times the image's memory
        scaled.masked_scatter_(region, plain(intensity(image.masked_select(region)[None])))
    return scaled
