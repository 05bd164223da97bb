"""Surface distances in mm, against MONAI, SciPy's distance transform and SimpleITK, and the rule for empty masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.spatial import KDTree
from torch import Tensor

from fmirnet_monai.metrics import SurfaceDistanceInMM

CASES = [((24, 30), (0.7, 2.5)), ((18, 15, 12), (0.8, 1.3, 3.0))]
pytestmark = pytest.mark.filterwarnings("ignore:the (ground truth|prediction) of class:UserWarning")


def ellipsoid(size: tuple[int, ...], centre: tuple[float, ...], radii: tuple[float, ...]) -> NDArray[np.bool_]:
    """Filled ellipsoid; centre and radii in voxels."""
    parts = [((i - c) / r) ** 2 for i, c, r in zip(np.indices(size), centre, radii, strict=True)]
    return np.sum(parts, axis=0) <= 1


def mask_pair(size: tuple[int, ...]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two overlapping ellipsoids, of which neither holds the other."""
    dims = len(size)
    first = ellipsoid(size, tuple(0.45 * n for n in size), (6, 4, 4)[:dims])
    second = ellipsoid(size, tuple(0.55 * n for n in size), (4, 5.5, 3)[:dims])
    assert (first & ~second).any()
    assert (second & ~first).any()
    return first, second


def reference(mask: NDArray, spacing: tuple[float, ...]) -> MetaTensor:
    """Mask ``(1, *spatial)`` with the affine of its spacing."""
    affine = torch.diag(torch.tensor([*spacing, *[1.0] * (3 - len(spacing)), 1.0], dtype=torch.float64))
    return MetaTensor(torch.from_numpy(mask).float().unsqueeze(0), affine=affine)


def prediction(mask: NDArray) -> Tensor:
    """Mask ``(1, *spatial)``."""
    return torch.from_numpy(mask).float().unsqueeze(0)


@pytest.mark.parametrize(
    ("distance", "options"),
    [
        (compute_hausdorff_distance, {}),
        (compute_hausdorff_distance, {"percentile": 95}),
        (compute_average_surface_distance, {"symmetric": True}),
        (compute_average_surface_distance, {}),
    ],
)
@pytest.mark.parametrize(("size", "spacing"), CASES)
def test_distance_equals_monai_with_spacing(
    size: tuple[int, ...], spacing: tuple[float, ...], distance: Any, options: dict[str, Any]
) -> None:
    first, second = mask_pair(size)
    metric = SurfaceDistanceInMM(distance, **options)
    result = metric([prediction(first)], [reference(second, spacing)])
    pair = (prediction(mask).unsqueeze(0) for mask in (first, second))
    torch.testing.assert_close(result, distance(*pair, spacing=list(spacing), **options))
    assert metric.aggregate().item() == pytest.approx(result.item())


def test_dice_and_distances_are_those_of_the_chaos_challenge() -> None:
    """The organisers' definitions (github.com/emrekavur/CHAOS-evaluation): border voxels, face neighbours, as points
    in the patient's millimetres; nearest distances of both directions pooled, their mean (ASSD) and maximum (MSSD).

    Theirs leaves out border voxels at the volume's edge; no liver of the challenge lies there.
    """
    first, second = mask_pair((18, 15, 12))
    angle = np.deg2rad(25)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ np.diag([0.8, 1.3, -3.0]), [10, -20, 300]
    clouds = []
    for mask in (first, second):
        border = mask & ~binary_erosion(mask, border_value=1)
        clouds.append(np.argwhere(border) @ affine[:3, :3].T + affine[:3, 3])
    pooled = np.concatenate([KDTree(clouds[i]).query(clouds[1 - i])[0] for i in (0, 1)])
    target = MetaTensor(prediction(second), affine=torch.from_numpy(affine))
    assd = SurfaceDistanceInMM(compute_average_surface_distance, symmetric=True)([prediction(first)], [target])
    mssd = SurfaceDistanceInMM(compute_hausdorff_distance)([prediction(first)], [target])
    assert assd.item() == pytest.approx(pooled.mean(), rel=1e-5)
    assert mssd.item() == pytest.approx(pooled.max(), rel=1e-5)
    dice = compute_dice(prediction(first)[None], prediction(second)[None])
    assert dice.item() == pytest.approx(2 * (first & second).sum() / (first.sum() + second.sum()), rel=1e-6)


@pytest.mark.parametrize(("size", "spacing"), CASES)
def test_distances_equal_scipy(size: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    first, second = mask_pair(size)
    edge_a, edge_b = (mask & ~binary_erosion(mask) for mask in (first, second))
    there = distance_transform_edt(~edge_b, sampling=spacing)[edge_a]
    back = distance_transform_edt(~edge_a, sampling=spacing)[edge_b]
    expected = {
        (compute_hausdorff_distance, "percentile", None): max(there.max(), back.max()),
        (compute_hausdorff_distance, "percentile", 95): max(np.percentile(there, 95), np.percentile(back, 95)),
        (compute_average_surface_distance, "symmetric", True): np.concatenate([there, back]).mean(),
    }
    for (distance, option, value), mm in expected.items():
        metric = SurfaceDistanceInMM(distance, **{option: value})
        assert metric([prediction(first)], [reference(second, spacing)]).item() == pytest.approx(mm, rel=1e-5)


@pytest.mark.parametrize(("size", "spacing"), CASES)
def test_hausdorff_distance_equals_simpleitk(size: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    first, second = mask_pair(size)
    images = []
    for mask in (first, second):
        image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
        image.SetSpacing(spacing[::-1])  # SimpleITK counts the axes of an array from the last
        images.append(image)
    hausdorff = SimpleITK.HausdorffDistanceImageFilter()
    hausdorff.Execute(*images)
    result = SurfaceDistanceInMM(compute_hausdorff_distance)([prediction(first)], [reference(second, spacing)])
    assert result.item() == pytest.approx(hausdorff.GetHausdorffDistance(), rel=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_shift_of_one_voxel_is_the_spacing_of_its_axis(axis: int) -> None:
    spacing = (0.8, 1.3, 3.0)
    box = np.zeros((10, 11, 12), dtype=bool)
    box[3:6, 4:7, 5:8] = True
    metric = SurfaceDistanceInMM(compute_hausdorff_distance)
    result = metric([prediction(np.roll(box, 1, axis))], [reference(box, spacing)])
    assert result.item() == pytest.approx(spacing[axis])


def test_each_case_has_its_own_spacing() -> None:
    box = np.zeros((10, 11), dtype=bool)
    box[3:6, 4:7] = True
    metric = SurfaceDistanceInMM(compute_hausdorff_distance)
    references = [reference(box, (s, 1.0)) for s in (1.0, 2.0, 4.5)]
    result = metric([prediction(np.roll(box, 2, 0))] * 3, references)
    torch.testing.assert_close(result, torch.tensor([[2.0], [4.0], [9.0]]))
    assert metric.aggregate().item() == pytest.approx(5.0)


def test_spacing_of_a_slice_that_is_not_axial() -> None:
    """A coronal slice: the rows run along x with 2 mm, the columns along z with 3 mm."""
    box = np.zeros((10, 11), dtype=bool)
    box[3:6, 4:7] = True
    affine = torch.tensor([[2.0, 0, 0, 0], [0, 0, 1, 0], [0, 3.0, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
    metric = SurfaceDistanceInMM(compute_hausdorff_distance)
    result = metric([prediction(np.roll(box, 1, 1))], [MetaTensor(prediction(box), affine=affine)])
    assert result.item() == pytest.approx(3.0)


def test_spacing_of_a_rotated_volume() -> None:
    box = np.zeros((10, 11, 12), dtype=bool)
    box[3:6, 4:7, 5:8] = True
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([0.8, 1.3, 3.0])
    metric = SurfaceDistanceInMM(compute_hausdorff_distance)
    mask = MetaTensor(prediction(box), affine=torch.from_numpy(affine))
    assert metric([prediction(np.roll(box, 1, 2))], [mask]).item() == pytest.approx(3.0)


def test_plain_tensors_have_voxels_of_one_millimetre() -> None:
    box = np.zeros((10, 11), dtype=bool)
    box[3:6, 4:7] = True
    metric = SurfaceDistanceInMM(compute_hausdorff_distance)
    assert metric([prediction(np.roll(box, 2, 1))], [prediction(box)]).item() == pytest.approx(2.0)
    batch = metric(prediction(np.roll(box, 2, 1)).unsqueeze(0), prediction(box).unsqueeze(0))
    assert batch.item() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("distance", "options"),
    [
        (compute_hausdorff_distance, {}),
        (compute_hausdorff_distance, {"percentile": 95}),
        (compute_hausdorff_distance, {"directed": True}),
        (compute_average_surface_distance, {"symmetric": True}),
        (compute_average_surface_distance, {}),
    ],
)
def test_empty_mask_is_nan_and_left_out_of_the_mean(distance: Any, options: dict[str, Any]) -> None:
    box = np.zeros((10, 11), dtype=bool)
    box[3:6, 4:7] = True
    empty = np.zeros_like(box)
    metric = SurfaceDistanceInMM(distance, **options)
    valid = metric([prediction(np.roll(box, 4, 0))], [reference(box, (2.0, 1.0))]).item()
    for first, second in ((box, empty), (empty, box), (empty, empty)):
        assert metric([prediction(first)], [reference(second, (2.0, 1.0))]).isnan().all()
    assert len(metric) == 4
    assert metric.aggregate().item() == pytest.approx(valid)


def test_without_any_distance_the_mean_is_nan() -> None:
    """Never 0, which would be a perfect match."""
    empty = np.zeros((10, 11), dtype=bool)
    metric = SurfaceDistanceInMM(compute_hausdorff_distance)
    metric([prediction(empty)], [reference(empty, (1.0, 1.0))])
    assert metric.aggregate().isnan().all()


def test_reset_forgets_the_cases() -> None:
    box = np.zeros((10, 11), dtype=bool)
    box[3:6, 4:7] = True
    metric = SurfaceDistanceInMM(compute_hausdorff_distance)
    metric([prediction(np.roll(box, 3, 0))], [reference(box, (1.0, 1.0))])
    metric.reset()
    metric([prediction(box)], [reference(box, (1.0, 1.0))])
    assert metric.aggregate().item() == 0
