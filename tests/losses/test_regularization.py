"""Penalties on the field: values known by hand, and folds that central differences do not see."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiffusionLoss
from torch import Tensor

from fmirnet_monai.losses import FoldingLoss, SmoothnessLoss
from fmirnet_monai.spatial import identity_grid

SIZES = [(5, 7), (4, 6, 5)]


def linear_field(size: tuple[int, ...], slopes: Tensor) -> Tensor:
    """Component i grows along axis j by ``slopes[i, j]`` a voxel."""
    return torch.einsum("ij,bj...->bi...", slopes, identity_grid(torch.zeros(1, len(size), *size)))


def alternating_field(size: tuple[int, ...], amplitude: float) -> Tensor:
    """Neighbours along the first axis are displaced along it against each other."""
    ddf = torch.zeros(1, len(size), *size)
    ddf[:, 0] = amplitude * (1 - 2 * (identity_grid(ddf)[:, 0] % 2))
    return ddf


@pytest.mark.parametrize("size", SIZES)
def test_smoothness_of_a_linear_field(size: tuple[int, ...]) -> None:
    """Each of the (n - 1) differences along an axis of n voxels counts, for each line of voxels."""
    dims = len(size)
    slopes = torch.randn(dims, dims)
    ddf = linear_field(size, slopes).repeat(3, *[1] * (dims + 1))
    voxels = torch.tensor(size).prod()
    differences = torch.tensor([(n - 1) * voxels / n for n in size])
    summed = (slopes.square().sum(0) * differences).sum()
    torch.testing.assert_close(SmoothnessLoss("sum")(ddf), summed, rtol=1e-4, atol=0)
    torch.testing.assert_close(SmoothnessLoss("mean")(ddf), slopes.square().mean(), rtol=1e-4, atol=0)


def test_smoothness_averages_over_the_batch() -> None:
    ddf = torch.randn(4, 2, 6, 7)
    for reduction in ("sum", "mean"):
        loss = SmoothnessLoss(reduction)
        torch.testing.assert_close(loss(ddf), torch.stack([loss(one) for one in ddf.split(1)]).mean())


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_translation_is_smooth(reduction: str) -> None:
    ddf = torch.tensor([3.0, -2.0]).reshape(1, 2, 1, 1).expand(1, 2, 6, 7)
    assert SmoothnessLoss(reduction)(ddf) == 0


@pytest.mark.parametrize("size", [(8, 6), (6, 4, 5)])
def test_smoothness_sees_an_alternating_field_that_monai_misses(size: tuple[int, ...]) -> None:
    ddf = alternating_field(size, 0.5)
    assert DiffusionLoss()(ddf) == 0
    # one component, one axis, differences of 1
    torch.testing.assert_close(SmoothnessLoss("mean")(ddf), torch.tensor(1 / len(size) ** 2))


@pytest.mark.parametrize("reduction", ["none", "median"])
def test_smoothness_refuses_other_reductions_by_name(reduction: str) -> None:
    with pytest.raises(ValueError, match=reduction):
        SmoothnessLoss(reduction)


@pytest.mark.parametrize("size", SIZES)
def test_folding_loss_of_identity_and_translation_is_zero(size: tuple[int, ...]) -> None:
    zero = torch.zeros(2, len(size), *size)
    assert FoldingLoss()(zero) == 0
    assert FoldingLoss()(zero + 2.5) == 0


@pytest.mark.parametrize(("margin", "shrink", "expected"), [(0.1, 0.3, 0.01), (0.0, 0.3, 0.0), (0.5, 0.8, 0.0)])
def test_folding_loss_of_a_shrunken_plane(margin: float, shrink: float, expected: float) -> None:
    """Both axes shrunk to 0.3 give every triangle 0.09 of its area."""
    ddf = linear_field((6, 7), (shrink - 1) * torch.eye(2))
    torch.testing.assert_close(FoldingLoss(margin)(ddf), torch.tensor(expected), atol=1e-5, rtol=0)


def test_folding_loss_of_a_reflected_plane() -> None:
    ddf = linear_field((6, 7), torch.diag(torch.tensor([-2.0, 0.0])))
    torch.testing.assert_close(FoldingLoss(0.25)(ddf), torch.tensor(1.25))


@pytest.mark.parametrize("size", [(8, 6), (6, 4, 5)])
def test_folding_loss_sees_an_alternating_fold(size: tuple[int, ...]) -> None:
    assert FoldingLoss()(alternating_field(size, -0.75)) > 0


def test_folding_loss_sees_a_middle_tetrahedron_below_the_margin() -> None:
    """Zero only when no simplex has less than the margin of its undeformed volume, and a middle one has 2 / 6.

    Four vertices of a cell, those of a middle tetrahedron, move to 0.6 of their distance from the cell's centre: its
    volume falls to 0.216, that of the corners to 0.4 and 0.432, and the other middle tetrahedron stays.
    """
    vertices = identity_grid(torch.zeros(1, 3, 2, 2, 2))
    moved = torch.where(vertices.sum(1, keepdim=True) % 2 == 0, 0.5 + 0.6 * (vertices - 0.5), vertices)
    a, b, c, d = (moved[0, :, i, j, k] for i, j, k in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)))
    volume = torch.linalg.det(torch.stack([b - a, c - a, d - a])).abs() / 6
    torch.testing.assert_close(volume, torch.tensor(0.216 * 2 / 6))
    ddf = moved - vertices
    assert FoldingLoss(0.2)(ddf) == 0
    assert FoldingLoss(0.3)(ddf) > 0


@pytest.mark.parametrize("size", [(8, 9), (5, 6, 7)])
def test_descent_removes_folds(size: tuple[int, ...]) -> None:
    ddf = (0.6 * torch.randn(1, len(size), *size)).requires_grad_()
    loss = FoldingLoss()
    start = loss(ddf)
    optimizer = torch.optim.SGD([ddf], lr=0.05 * ddf.numel())
    values = []
    for _ in range(5):
        optimizer.zero_grad()
        value = loss(ddf)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert loss(ddf) < 0.7 * start, values


@pytest.mark.parametrize("margin", [-0.1, 1.0])
def test_margin_outside_its_range_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match=f"margin .*{margin}"):
        FoldingLoss(margin)
