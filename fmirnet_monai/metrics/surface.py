"""Surface distances of labels in mm, with one rule for empty masks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from monai.data.utils import affine_to_spacing
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction
from torch import Tensor


class SurfaceDistanceInMM(CumulativeIterationMetric):
    """A surface distance of MONAI with each case's own spacing, read from the affine of its reference label.

    A case in which either mask is empty has no surface distance: it is NaN and left out of the mean, never 0.

    Args:
        distance: :py:func:`monai.metrics.compute_hausdorff_distance` or
            :py:func:`monai.metrics.compute_average_surface_distance`.
        options: further arguments of ``distance``, such as ``percentile`` or ``symmetric``.
    """

    def __init__(self, distance: Callable[..., Tensor], **options: Any) -> None:
        super().__init__()
        self.distance = partial(distance, **options)

    def _compute_list(self, y_pred: Any, y: Any = None, **_: Any) -> Tensor:
        """Lists of binary masks ``(C, *spatial)``; the reference is a MetaTensor, otherwise the spacing is 1 mm."""
        distances = []
        for predicted, reference in zip(y_pred, y, strict=True):
            spacing = [1.0] * (reference.dim() - 1)
            if hasattr(reference, "affine"):
                voxel = affine_to_spacing(reference.affine, len(reference.affine) - 1)
                spacing = voxel[: reference.dim() - 1].tolist()
            pair = (torch.as_tensor(mask).unsqueeze(0) for mask in (predicted, reference))
            distances.append(self.distance(*pair, spacing=spacing))
        values = torch.cat(distances)
        return values.masked_fill(~values.isfinite(), torch.nan)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Tensor:
        return self._compute_list(list(y_pred), list(y) if y is not None else None)

    def aggregate(self) -> Tensor:
        """Mean over the cases that have a distance."""
        mean, counted = do_metric_reduction(self.get_buffer(), "mean")
        return mean.masked_fill(counted == 0, torch.nan)
