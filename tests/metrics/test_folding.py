"""Folding metrics on fields whose folded part is known by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fmirnet_monai.metrics import FoldingMetric, LogJacobianStdMetric, NonDiffeomorphicVolumeMetric
from fmirnet_monai.metrics.folding import FieldMetric
from fmirnet_monai.spatial import identity_grid

METRICS = [FoldingMetric(), FoldingMetric(digital=True), NonDiffeomorphicVolumeMetric(), LogJacobianStdMetric()]


def name(metric: FieldMetric) -> str:
    """Short test name of a metric."""
    return type(metric).__name__ + ("Digital" if getattr(metric, "digital", False) else "")


def one_moved_voxel(distance: float) -> Tensor:
    """Field of 5 x 5 voxels that displaces the middle one along the first axis."""
    ddf = torch.zeros(1, 2, 5, 5)
    ddf[0, 0, 2, 2] = distance
    return ddf


def mirrored(size: tuple[int, ...]) -> Tensor:
    """The map ``x -> -x`` along the first axis."""
    ddf = torch.zeros(1, len(size), *size)
    ddf[:, 0] = -2 * identity_grid(ddf)[:, 0]
    return ddf


@pytest.mark.parametrize("metric", METRICS, ids=name)
@pytest.mark.parametrize("size", [(6, 7), (4, 5, 6)])
def test_identity_and_translation_are_perfect(metric: FieldMetric, size: tuple[int, ...]) -> None:
    zero = torch.zeros(2, len(size), *size)
    assert torch.equal(metric(zero), torch.zeros(2, 1))
    torch.testing.assert_close(metric(zero - 3.5), torch.zeros(2, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("metric", METRICS[:3], ids=name)
@pytest.mark.parametrize("size", [(6, 7), (4, 5, 6)])
def test_mirrored_grid_is_folded_altogether(metric: FieldMetric, size: tuple[int, ...]) -> None:
    torch.testing.assert_close(metric(mirrored(size)), torch.tensor([[100.0]]))


def test_digital_folding_counts_cells() -> None:
    """A voxel that passes its neighbour by half a step folds the two cells ahead of it, 2 of 16."""
    assert FoldingMetric(digital=True)(one_moved_voxel(1.5)).item() == pytest.approx(100 * 2 / 16)
    assert FoldingMetric(digital=True)(one_moved_voxel(0.9)).item() == 0


def test_central_folding_counts_voxels() -> None:
    """The central difference at the voxel ahead is 1 - distance / 2: 1 of 25 voxels, from a distance of 2 on."""
    assert FoldingMetric()(one_moved_voxel(2.5)).item() == pytest.approx(100 / 25)
    assert FoldingMetric()(one_moved_voxel(1.5)).item() == 0


def test_non_diffeomorphic_volume_of_a_moved_voxel() -> None:
    """In both folded cells one triangle of each tessellation has the area -0.25: 2 x 0.25 of 16 cells."""
    assert NonDiffeomorphicVolumeMetric()(one_moved_voxel(1.5)).item() == pytest.approx(100 * 2 * 0.25 / 16)
    assert NonDiffeomorphicVolumeMetric()(one_moved_voxel(0.9)).item() == 0


@pytest.mark.parametrize("size", [(6, 7), (5, 6, 4)])
def test_non_diffeomorphic_volume_of_a_folded_plane(size: tuple[int, ...]) -> None:
    """One layer of cells turned over and stretched to twice its width: 2 of 1 cell's volume each."""
    position = torch.arange(float(size[0]))
    position[3:] -= 3  # the steps 1, 1, -2, 1, ...
    ddf = torch.zeros(1, len(size), *size)
    ddf[:, 0] = (position - torch.arange(float(size[0]))).reshape(-1, *[1] * (len(size) - 1))
    assert NonDiffeomorphicVolumeMetric()(ddf).item() == pytest.approx(100 * 2 / (size[0] - 1))
    assert FoldingMetric(digital=True)(ddf).item() == pytest.approx(100 / (size[0] - 1))


@pytest.mark.parametrize("dims", [2, 3])
def test_affine_map_has_no_spread_of_jacobians(dims: int) -> None:
    position = identity_grid(torch.zeros(1, dims, *(6, 7, 5)[:dims]))
    matrix = torch.tensor([[1.2, 0.3, 0.1], [-0.2, 0.8, 0.2], [0.1, 0.0, 1.5]])[:dims, :dims]
    ddf = torch.einsum("ij,bj...->bi...", matrix, position) - position
    assert LogJacobianStdMetric()(ddf).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("size", [(4, 6), (4, 3, 5)])
def test_spread_of_known_jacobians(size: tuple[int, ...]) -> None:
    """Positions 0, 1, 3, 7 along the first axis have the differences 1, 3 / 2, 6 / 2, 4."""
    moved = torch.tensor([0.0, 1.0, 3.0, 7.0]) - torch.arange(4.0)
    ddf = torch.zeros(1, len(size), *size)
    ddf[:, 0] = moved.reshape(-1, *[1] * (len(size) - 1))
    expected = np.std(np.repeat(np.log([1.0, 1.5, 3.0, 4.0]), np.prod(size[1:])), ddof=1)
    assert LogJacobianStdMetric()(ddf).item() == pytest.approx(expected, rel=1e-5)


def test_folded_voxels_count_with_the_smallest_jacobian() -> None:
    """Of a field folded everywhere all determinants are taken as 1e-9, so nothing is infinite or NaN."""
    assert LogJacobianStdMetric()(mirrored((6, 7))).item() == 0
    folded = LogJacobianStdMetric()(one_moved_voxel(2.5)).item()
    # determinants: 25 voxels of 1, but 1 + 1.25 behind the moved one and 1 - 1.25 (folded) ahead of it
    expected = np.std([0.0] * 23 + [np.log(2.25), np.log(1e-9)], ddof=1)
    assert folded == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("metric", METRICS, ids=name)
def test_aggregate_is_the_mean_over_cases_of_batches_and_lists(metric: FieldMetric) -> None:
    fields = torch.cat([one_moved_voxel(d) for d in (0.5, 1.5, 2.5, 3.5)])
    metric.reset()
    single = torch.cat([metric(field) for field in fields.split(1)])
    assert single.unique().numel() > 1
    metric.reset()
    metric(fields[:2])
    metric(list(fields[2:]))
    torch.testing.assert_close(metric.get_buffer(), single)
    torch.testing.assert_close(metric.aggregate().item(), single.mean().item())
    torch.testing.assert_close(metric.aggregate("sum").item(), single.sum().item())
    metric.reset()
    metric(fields[3:])
    torch.testing.assert_close(metric.aggregate().item(), single[3].item())


@pytest.mark.parametrize("metric", METRICS, ids=name)
def test_second_argument_is_ignored(metric: FieldMetric) -> None:
    ddf = one_moved_voxel(2.5)
    assert torch.equal(metric(ddf, torch.rand(1, 1, 5, 5)), metric(ddf))
    assert torch.equal(metric(y_pred=[ddf[0]], y=[torch.rand(1, 5, 5)])[0], metric(ddf)[0])
