"""The figures of one registered pair."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fmirnet_monai.metrics.similarity import WINDOW, ncc, nmi, ssim
from fmirnet_monai.spatial import DisplacementField, Grid
from fmirnet_monai.spatial.image import plain
from fmirnet_monai.spatial.jacobian import SMALLEST


def image_metrics(image: Tensor, fixed: Tensor, inside: Tensor | None = None) -> dict[str, float]:
    """SSIM, NCC and NMI of two images ``(1, *spatial)`` in [0, 1], where both are valid.

    SSIM is NaN where an axis is shorter than its window of 11 voxels; axes of one voxel don't count.

    Args:
        image: to compare.
        fixed: to compare it with.
        inside: where both are valid, ``(*spatial)``; None for everywhere. Without a valid voxel all are NaN.
    """
    one, other = (plain(tensor, torch.float32).squeeze()[None, None] for tensor in (image, fixed))
    if inside is not None and not inside.any():
        return dict.fromkeys(("ssim", "ncc", "nmi"), math.nan)
    weights = None if inside is None or bool(inside.all()) else inside.squeeze()[None, None].to(one)
    large = min(one.shape[2:]) >= WINDOW
    return {
        "ssim": float(ssim(one, other, weights)) if large else math.nan,
        "ncc": float(ncc(one, other, weights)),
        "nmi": float(nmi(one, other, weights)),
    }


def label_metrics(label: Tensor, fixed_label: Tensor) -> dict[str, float]:
    """Dice, HD95 and ASSD in mm, mean over the labels of the fixed image, and Dice of each as ``dice_ID``.

    A label whose warped mask is empty has Dice 0 and no surface distance; without any label all are NaN.

    Args:
        label: ``(1, *spatial)`` integers on the grid of ``fixed_label``.
        fixed_label: ``(1, *spatial)`` integers, its affine gives the spacing.
    """
    # loading MONAI takes seconds, which who has no labels need not wait for
    from monai.metrics import (
        compute_average_surface_distance,
        compute_dice,
        compute_hausdorff_distance,
    )

    spacing = [s for s, n in zip(Grid.of(fixed_label).spacing, fixed_label.shape[1:], strict=True) if n > 1]
    tensors = [plain(item, device="cpu").squeeze() for item in (label, fixed_label)]
    ids = [int(i) for i in tensors[1].unique() if i != 0]
    if not ids:
        return dict.fromkeys(("dice", "hd95", "assd"), math.nan)
    found, truth = (torch.stack([tensor == i for i in ids])[None] for tensor in tensors)
    dice = compute_dice(found, truth)[0]
    values = {"dice": float(dice.mean())}
    if len(ids) > 1:
        values |= {f"dice_{i}": float(value) for i, value in zip(ids, dice, strict=True)}
    options: dict[str, Any] = {"include_background": True, "spacing": spacing}
    values["hd95"] = _mean_distance(compute_hausdorff_distance(found, truth, percentile=95, **options))
    values["assd"] = _mean_distance(compute_average_surface_distance(found, truth, symmetric=True, **options))
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


def volume_metrics(determinant: Tensor) -> dict[str, float]:
    """Smallest value, 1st and 99th percentile of a Jacobian determinant ``(*spatial)``: 1 keeps volume."""
    values = np.quantile(determinant.cpu().numpy(), (0.0, 0.01, 0.99))
    return dict(zip(("jacobian_min", "jacobian_p01", "jacobian_p99"), map(float, values), strict=True))


def _mean_distance(distances: Tensor) -> float:
    """Mean over the labels that have a distance."""
    return float(distances.masked_fill(~distances.isfinite(), torch.nan).nanmean())
