"""The figures of one registered pair."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.metrics import (
    CumulativeIterationMetric,
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
)
from monai.utils import convert_to_tensor
from numpy.typing import ArrayLike
from torch import Tensor

from fmirnet_monai.metrics import NCCMetric, NMIMetric, SSIMMetric, SurfaceDistanceInMM
from fmirnet_monai.metrics.folding import SMALLEST
from fmirnet_monai.spatial import DisplacementField, Grid


def image_metrics(image: Tensor, fixed: Tensor, inside: Tensor | None = None) -> dict[str, float]:
    """SSIM, NCC and NMI of two images ``(1, *spatial)`` in [0, 1], where both are valid.

    SSIM is NaN where an axis is shorter than its window of 11 voxels; axes of one voxel don't count.

    Args:
        image: to compare.
        fixed: to compare it with.
        inside: where both are valid, ``(*spatial)``; None for everywhere. Without a valid voxel all are NaN.
    """
    pair = [
        convert_to_tensor(tensor, dtype=torch.float32, track_meta=False).squeeze()[None, None]
        for tensor in (image, fixed)
    ]
    if inside is not None and not inside.any():
        return dict.fromkeys(("ssim", "ncc", "nmi"), math.nan)
    mask = None if inside is None or bool(inside.all()) else inside.squeeze()[None, None].to(pair[0].device)
    metrics: dict[str, CumulativeIterationMetric] = {"ncc": NCCMetric(), "nmi": NMIMetric()}
    values = {name: _number(metric(*pair, mask=mask)) for name, metric in metrics.items()}
    large = min(pair[0].shape[2:]) >= 11
    return {"ssim": _number(SSIMMetric()(*pair, mask=mask)) if large else math.nan, **values}


def label_metrics(label: Tensor, fixed_label: MetaTensor) -> dict[str, float]:
    """Dice, HD95 and ASSD in mm, mean over the labels of the fixed image, and Dice of each as ``dice_ID``.

    A label whose warped mask is empty has Dice 0 and no surface distance; without any label all are NaN.

    Args:
        label: ``(1, *spatial)`` integers on the grid of ``fixed_label``.
        fixed_label: ``(1, *spatial)`` integers, its affine gives the spacing.
    """
    spacing = [s for s, n in zip(Grid.of(fixed_label).spacing, fixed_label.shape[1:], strict=True) if n > 1]
    tensors = [convert_to_tensor(item, device="cpu", track_meta=False).squeeze() for item in (label, fixed_label)]
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


def field_metrics(field: DisplacementField, determinant: Tensor | None = None) -> dict[str, float]:
    """Folding in percent (central differences and digital) and SDlogJ; axes of one voxel are left out.

    As :py:class:`FoldingMetric` and :py:class:`LogJacobianStdMetric`, but slab by slab.

    Args:
        field: to measure.
        determinant: its Jacobian determinant ``(*grid.shape)``, where it is known already.
    """
    determinant = field.jacobian_determinant() if determinant is None else determinant
    return {
        "folding": 100.0 * float((determinant <= 0).float().mean()),
        "digital_folding": field.digital_folding(),
        "sd_log_jacobian": float(determinant.clamp(min=SMALLEST).log().flatten().std()),
    }


def _number(values: Any) -> float:
    """Mean of what a metric gave, NaN left out."""
    return float(torch.as_tensor(values).nanmean())
