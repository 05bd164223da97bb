"""Images and masks as ITK takes them."""

from __future__ import annotations

from typing import Any

import itk
import numpy as np
import torch
from monai.utils import convert_to_tensor
from torch import Tensor

from fmirnet_monai.spatial import Grid
from fmirnet_monai.spatial.geometry import set_geometry


def image_to_itk(image: Tensor, grid: Grid) -> Any:
    """A channel-first image ``(1, *grid.shape)`` as ITK image of floats on ``grid``.

    Raises:
        ValueError: when the grid's axes are not at right angles, which an ITK image can't express.
    """
    values = convert_to_tensor(image, dtype=torch.float32, track_meta=False).cpu().numpy()[0]
    stored = itk.image_from_array(np.ascontiguousarray(values.T))
    set_geometry(stored, grid)
    return stored


def mask_to_itk(mask: Tensor, grid: Grid) -> Any:
    """A mask ``(1, *grid.shape)`` as ITK image of 0 and 1 on ``grid``."""
    stored = itk.image_from_array(np.ascontiguousarray((mask[0] > 0).cpu().numpy().astype(np.uint8).T))
    set_geometry(stored, grid)
    return stored
