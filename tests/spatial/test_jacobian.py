"""Jacobian determinants, against linear algebra, NumPy's gradient and volumes known by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fmirnet_monai.spatial import digital_jacobian_determinants, identity_grid, jacobian_determinant

SIZES = [(5, 7), (4, 6, 5)]


def linear_field(matrix: Tensor, size: tuple[int, ...]) -> Tensor:
    """Displacement of ``x -> matrix @ x``."""
    position = identity_grid(torch.zeros(1, len(size), *size, dtype=matrix.dtype))
    return torch.einsum("ij,bj...->bi...", matrix, position) - position


def inner_noise(size: tuple[int, ...], amplitude: float) -> Tensor:
    """Random displacements, zero at the border of the grid."""
    ddf = torch.zeros(1, len(size), *size, dtype=torch.float64)
    inner = ddf[(..., *[slice(1, -1)] * len(size))]
    inner += amplitude * torch.randn(inner.shape, dtype=torch.float64)
    return ddf


@pytest.mark.parametrize("size", SIZES)
def test_affine_field_has_the_determinant_of_its_matrix(size: tuple[int, ...]) -> None:
    dims = len(size)
    for _ in range(5):
        matrix = torch.eye(dims, dtype=torch.float64) + 0.5 * torch.randn(dims, dims, dtype=torch.float64)
        expected, ddf = torch.linalg.det(matrix), linear_field(matrix, size)
        torch.testing.assert_close(jacobian_determinant(ddf), expected.expand(1, *size))
        corners, middle = digital_jacobian_determinants(ddf).split([2**dims, 2 if dims == 3 else 0], dim=1)
        torch.testing.assert_close(corners, expected.expand_as(corners))
        torch.testing.assert_close(middle, 2 * expected.expand_as(middle))


@pytest.mark.parametrize("size", SIZES)
def test_digital_determinants_have_one_value_per_simplex_and_cell(size: tuple[int, ...]) -> None:
    ddf = torch.zeros(3, len(size), *size)
    assert digital_jacobian_determinants(ddf).shape == (3, {2: 4, 3: 10}[len(size)], *(n - 1 for n in size))


@pytest.mark.parametrize("size", SIZES)
def test_central_differences_equal_numpy_gradient(size: tuple[int, ...]) -> None:
    dims = len(size)
    ddf = torch.randn(2, dims, *size, dtype=torch.float64)
    for field, result in zip(ddf.numpy(), jacobian_determinant(ddf).numpy(), strict=True):
        points = field + np.indices(size)
        matrices = np.array([np.gradient(component) for component in points])  # component, axis, position
        expected = np.linalg.det(np.moveaxis(matrices, (0, 1), (-2, -1)))
        np.testing.assert_allclose(result, expected, atol=1e-12)


@pytest.mark.parametrize(("size", "axis"), [((8, 6), 0), ((6, 8), 1), ((4, 4, 8), 2), ((8, 4, 4), 0)])
def test_alternating_fold_is_seen_by_the_digital_determinants_alone(size: tuple[int, ...], axis: int) -> None:
    """Neighbours that swap their places: x + 0.75 (-1)^(x + 1) has the steps 2.5, -0.5, 2.5, ..."""
    ddf = torch.zeros(1, len(size), *size)
    index = identity_grid(ddf)[:, axis]
    ddf[:, axis] = torch.where(index % 2 == 0, -0.75, 0.75)
    assert (jacobian_determinant(ddf) > 0.9).all()
    smallest = digital_jacobian_determinants(ddf).amin(1).movedim(1 + axis, 1)
    torch.testing.assert_close(smallest[:, 0::2], torch.full_like(smallest[:, 0::2], 2.5))
    assert (smallest[:, 1::2] < -0.49).all()


@pytest.mark.parametrize("size", SIZES)
def test_reflection_is_negative(size: tuple[int, ...]) -> None:
    for axis in range(len(size)):
        matrix = torch.eye(len(size))
        matrix[axis, axis] = -1
        ddf = linear_field(matrix, size)
        torch.testing.assert_close(jacobian_determinant(ddf), -torch.ones(1, *size))
        assert (digital_jacobian_determinants(ddf) <= -1 + 1e-5).all()


@pytest.mark.parametrize("amplitude", [0.2, 2.0])
def test_each_tessellation_fills_the_grid_in_2d(amplitude: float) -> None:
    """With the border held the signed areas add up to the grid's, however the inside is folded."""
    size = (6, 9)
    areas = digital_jacobian_determinants(inner_noise(size, amplitude)) / 2
    for corners in ([0, 3], [1, 2]):  # the corners (0, 0) and (1, 1) share a diagonal, (0, 1) and (1, 0) the other
        torch.testing.assert_close(areas[:, corners].sum(), torch.tensor(5.0 * 8, dtype=torch.float64))


@pytest.mark.parametrize("amplitude", [0.2, 2.0])
def test_each_tessellation_fills_the_grid_in_3d(amplitude: float) -> None:
    """As in 2-D; in 3-D the faces of two neighbours match when their cells take the tessellations in turn."""
    size = (5, 6, 7)
    volumes = digital_jacobian_determinants(inner_noise(size, amplitude)) / 6
    # a middle tetrahedron goes with the four corners it has no vertex in
    odd_corners, even_corners = volumes[:, [1, 2, 4, 7, 8]].sum(1), volumes[:, [0, 3, 5, 6, 9]].sum(1)
    parity = torch.from_numpy(np.indices((4, 5, 6)).sum(0) % 2).bool()
    for first, second in ((odd_corners, even_corners), (even_corners, odd_corners)):
        total = torch.where(parity, first, second).sum()
        torch.testing.assert_close(total, torch.tensor(4.0 * 5 * 6, dtype=torch.float64))


@pytest.mark.parametrize("size", SIZES)
def test_gradients_are_right(size: tuple[int, ...]) -> None:
    ddf = torch.randn(1, len(size), *[3] * len(size), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(jacobian_determinant, (ddf,))
    assert torch.autograd.gradcheck(digital_jacobian_determinants, (ddf,))
