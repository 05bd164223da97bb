"""The figures of one registered pair."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance
from monai.utils import convert_to_tensor
from numpy.typing import ArrayLike
from torch import Tensor

from fmirnet_monai.metrics import (
    FoldingMetric,
    LogJacobianStdMetric,
    NCCMetric,
    NMIMetric,
    SSIMMetric,
    SurfaceDistanceInMM,
)
from fmirnet_monai.spatial import DisplacementField, Grid


def image_metrics(image: Tensor, fixed: Tensor) -> dict[str, float]:
    """SSIM, NCC and NMI of two images ``(1, *spatial)`` in [0, 1].

    SSIM is NaN where an axis is shorter than its window of 11 voxels; axes of one voxel don't count.
    """
    pair = [
        convert_to_tensor(tensor, dtype=torch.float32, track_meta=False).squeeze()[None, None]
        for tensor in (image, fixed)
    ]
    metrics = {"ncc": NCCMetric(), "nmi": NMIMetric()}
    values = {name: _number(metric(*pair)) for name, metric in metrics.items()}
    large = min(pair[0].shape[2:]) >= 11
    return {"ssim": _number(SSIMMetric()(*pair)) if large else math.nan, **values}


def label_metrics(label: Tensor, fixed_label: MetaTensor) -> dict[str, float]:
    """Dice, HD95 and ASSD in mm, mean over the labels of the fixed image, and Dice of each as ``dice_ID``.

    A label whose warped mask is empty has Dice 0 and no surface distance; without any label all are NaN.

    Args:
        label: ``(1, *spatial)`` integers on the grid of ``fixed_label``.
        fixed_label: ``(1, *spatial)`` integers, its affine gives the spacing.
    """
    spacing = [s for s, n in zip(Grid.of(fixed_label).spacing, fixed_label.shape[1:], strict=True) if n > 1]
    tensors = [convert_to_tensor(tensor, track_meta=False).squeeze() for tensor in (label, fixed_label)]
    ids = [int(i) for i in tensors[1].unique() if i != 0]
    if not ids:
        return dict.fromkeys(("dice", "hd95", "assd"), math.nan)
    pair = [torch.stack([tensor == i for i in ids]) for tensor in tensors]
    reference = MetaTensor(pair[1], affine=torch.diag(torch.tensor([*spacing, 1.0])))
    dice = compute_dice(pair[0][None], pair[1][None])[0]
    surfaces = {
        "hd95": SurfaceDistanceInMM(compute_hausdorff_distance, percentile=95, include_background=True),
        "assd": SurfaceDistanceInMM(compute_average_surface_distance, symmetric=True, include_background=True),
    }
    values = {"dice": float(dice.mean())}
    if len(ids) > 1:
        values |= {f"dice_{i}": float(value) for i, value in zip(ids, dice, strict=True)}
    for name, metric in surfaces.items():
        values[name] = _number(metric([pair[0]], [reference]))
    return values


def point_metrics(points: ArrayLike, moving_points: ArrayLike) -> dict[str, float]:
    """Target registration error in mm: mean, median and 95th percentile of the distances of ``(N, D)`` points."""
    distances = np.linalg.norm(np.asarray(points) - np.asarray(moving_points), axis=1)
    return {
        "tre_mean": float(distances.mean()),
        "tre_median": float(np.median(distances)),
        "tre_95": float(np.percentile(distances, 95)),
    }


def map_metrics(
    field: DisplacementField,
    moving: MetaTensor,
    fixed: MetaTensor,
    intensity: Callable[[Tensor], Any],
    moving_label: MetaTensor | None = None,
    fixed_label: MetaTensor | None = None,
    moving_points: ArrayLike | None = None,
    fixed_points: ArrayLike | None = None,
) -> dict[str, float]:
    """Image, label and landmark figures of a pair through a map, as far as there are labels and landmarks.

    Args:
        field: from the fixed image's space to the moving image's, on the grid of ``fixed``.
        moving: ``(1, *spatial)``.
        fixed: ``(1, *spatial)``.
        intensity: maps an image to [0, 1].
        moving_label: integers ``(1, *spatial)``.
        fixed_label: integers on the grid of ``fixed``.
        moving_points: ``(N, D)`` in RAS+ mm.
        fixed_points: the same points in the fixed image.
    """
    values = image_metrics(intensity(field.warp(moving, Grid.of(moving))), intensity(fixed))
    if moving_label is not None and fixed_label is not None:
        values |= label_metrics(field.warp(moving_label, mode="nearest", padding_mode="zeros"), fixed_label)
    if moving_points is not None and fixed_points is not None:
        values |= point_metrics(field.map_points(fixed_points), moving_points)
    return values


def field_metrics(field: DisplacementField) -> dict[str, float]:
    """Folding in percent (central differences and digital) and SDlogJ; axes of one voxel are left out."""
    ddf = field.flat_ddf()[None]
    metrics = {
        "folding": FoldingMetric(),
        "digital_folding": FoldingMetric(digital=True),
        "sd_log_jacobian": LogJacobianStdMetric(),
    }
    return {name: _number(metric(ddf)) for name, metric in metrics.items()}


def _number(values: Any) -> float:
    """Mean of what a metric gave, NaN left out."""
    return float(torch.as_tensor(values).nanmean())
