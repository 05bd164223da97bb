"""Properties of maps that hold whatever their geometry, and agreement with ITK."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmirnet_monai.spatial import Affine, Chain, DisplacementField, Grid, Inverse, chain, integrate, resample

from .conftest import random_affine, random_field, random_grid, random_map, sitk_points, smooth_image, transform_of

SHAPES = [(18, 15), (1, 17, 14), (16, 13, 1), (15, 12, 14)]
SEEDS = st.integers(0, 2**31)
FEW = settings(max_examples=25, deadline=None)


def spread(rng: np.random.Generator, grid: Grid, count: int = 40, margin: float = 0.0) -> torch.Tensor:
    """Points of the grid, in mm."""
    voxels = rng.uniform(
        -0.49 + margin, np.maximum(np.array(grid.shape) - 0.51 - margin, -0.48 + margin), (count, grid.dims)
    )
    return torch.from_numpy(grid.to_world(voxels))


@pytest.mark.parametrize("shape", SHAPES)
@FEW
@given(SEEDS)
def test_a_chain_is_itk_s_composite_also_beyond_the_fields_grids(shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = random_grid(rng, len(shape), shape)
    whole = chain([random_map(rng, grid) for _ in range(3)])
    points = torch.from_numpy(grid.to_world(rng.uniform(-4, np.array(shape) + 3, (40, grid.dims))))
    expected = sitk_points(transform_of(whole), points.numpy())
    found, inside = whole(points)
    assert np.linalg.norm(found.numpy() - expected, axis=1).max() < 1e-3  # mm
    assert inside.shape == (40,)


@pytest.mark.parametrize("shape", SHAPES)
@FEW
@given(SEEDS)
def test_composition_is_associative_and_followed_point_by_point(shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = random_grid(rng, len(shape), shape)
    a, b, c = (random_map(rng, grid) for _ in range(3))
    points = spread(rng, grid)
    left, right = a.then(b).then(c), a.then(b.then(c))
    one, seen_one = left(points)
    other, seen_other = right(points)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    assert torch.equal(seen_one, seen_other)
    middle, seen = a(points)
    after, seen_b = b(middle)
    last, seen_c = c(after)
    torch.testing.assert_close(one, last, rtol=0, atol=1e-9)
    assert torch.equal(seen_one, seen & seen_b & seen_c)


@pytest.mark.parametrize("shape", SHAPES)
@FEW
@given(SEEDS)
def test_a_chain_equals_its_own_densely_sampled_field(shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = random_grid(rng, len(shape), shape)
    whole = chain([random_field(rng, grid), random_affine(rng, grid.dims, grid)])
    dense, inside = DisplacementField.of(whole, grid)
    voxels = torch.from_numpy(grid.points())
    torch.testing.assert_close(dense(voxels)[0], whole(voxels)[0], rtol=0, atol=1e-4)
    assert inside.all()


@pytest.mark.parametrize("shape", SHAPES)
@FEW
@given(SEEDS)
def test_an_inverse_undoes_its_map(shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = random_grid(rng, len(shape), shape)
    whole = chain([random_field(rng, grid), random_affine(rng, grid.dims, grid)])
    points = spread(rng, grid)
    there, _ = whole(points)
    back, found = whole.inverse()(there)
    assert found.all()
    assert (grid.to_voxel(back) - grid.to_voxel(points)).norm(dim=1).max() < 0.05
    forth, _ = whole(back)
    assert (grid.to_voxel(forth) - grid.to_voxel(there)).norm(dim=1).max() < 0.02


@pytest.mark.parametrize("shape", SHAPES)
@FEW
@given(SEEDS)
def test_points_agree_with_images(shape: tuple[int, ...], seed: int) -> None:
    """An image of each coordinate, warped, says where the points of the fixed image are taken from."""
    rng = np.random.default_rng(seed)
    fixed = random_grid(rng, len(shape), shape)
    moving = Grid(tuple(n if n == 1 else n + 12 for n in shape), fixed.affine)
    affine = moving.affine.copy()
    affine[:-1, -1] = fixed.to_world(np.array([0.0 if n == 1 else -6.0 for n in shape]))
    moving = Grid(moving.shape, affine)
    whole = random_field(rng, fixed)
    coordinates = moving.to_world(moving.indices()).movedim(-1, 0)
    warped, inside = resample(coordinates, fixed, whole, grid=moving)
    expected, _ = whole(fixed.to_world(fixed.indices()))
    assert inside.all()
    torch.testing.assert_close(warped.movedim(0, -1), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("shape", SHAPES)
@FEW
@given(SEEDS)
def test_world_and_voxel_agree(shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = random_grid(rng, len(shape), shape)
    voxels = rng.uniform(-5, 30, (20, grid.dims))
    np.testing.assert_allclose(grid.to_voxel(grid.to_world(voxels)), voxels, atol=1e-9)
    both = grid.to_world(torch.from_numpy(voxels))
    np.testing.assert_allclose(both.numpy(), grid.to_world(voxels), atol=1e-9)
    expected = np.all((voxels >= -0.5) & (voxels <= np.array(shape) - 0.5), axis=1)
    assert np.array_equal(grid.contains(grid.to_world(voxels)), expected)
    assert np.array_equal(grid.contains(both).numpy(), expected)


def test_affine_maps_stay_affine_and_join() -> None:
    rng = np.random.default_rng(0)
    grid = random_grid(rng, 3)
    one, other = (random_affine(rng, 3, grid) for _ in range(2))
    joined = one.then(other)
    assert isinstance(joined, Affine)
    np.testing.assert_allclose(joined.matrix, other.matrix @ one.matrix)
    assert isinstance(one.inverse(), Affine)
    np.testing.assert_allclose(one.inverse().matrix @ one.matrix, np.eye(4), atol=1e-12)


def test_a_field_and_its_inverse_are_one_object_s_two_sides() -> None:
    field = random_field(np.random.default_rng(1), random_grid(np.random.default_rng(0), 2))
    assert isinstance(field.inverse(), Inverse)
    assert field.inverse().inverse() is field
    whole = chain([field, Affine(np.diag([2.0, 1.0, 1.0]))])
    assert isinstance(whole, Chain) and isinstance(whole.inverse(), Chain)
    assert whole.inverse().parts()[1].inverse() is field


def test_what_moves_nothing_is_no_link() -> None:
    field = random_field(np.random.default_rng(1), random_grid(np.random.default_rng(0), 2))
    still = Affine.identity(2)
    assert chain([field, still]) is field and chain([still, still]).dims == 2
    with pytest.raises(ValueError, match="one number of axes"):
        chain([field, Affine.identity(3)])


def test_an_inverse_says_where_there_is_none() -> None:
    """Of a shift by half a grid: half of it is reached."""
    grid = Grid((20, 10), np.diag([2.0, 1.0, 1.0]))
    field = DisplacementField(torch.tensor([10.0, 0.0]).reshape(2, 1, 1).expand(2, 20, 10), grid)
    back, found = field.inverse()(grid.to_world(grid.indices()))
    assert torch.equal(found, (torch.arange(20) >= 10)[:, None].expand(20, 10))
    torch.testing.assert_close(
        grid.to_voxel(back) - grid.indices(), torch.tensor([-10.0, 0.0]).double().expand(20, 10, 2)
    )


def test_beyond_its_grid_a_field_moves_nothing() -> None:
    grid = Grid((5, 5), np.eye(3))
    field = DisplacementField(torch.full((2, 5, 5), 2.0), grid)
    points = torch.tensor([[4.49, 2.0], [4.51, 2.0], [-0.49, -0.49], [2.0, 40.0]]).double()
    moved, inside = field(points)
    torch.testing.assert_close(moved - points, torch.tensor([[2.0, 2.0], [0, 0], [2.0, 2.0], [0, 0]]).double())
    assert inside.tolist() == [True, False, True, False]


def test_the_flow_back_is_the_inverse_of_the_flow() -> None:
    grid = Grid((40, 36), np.diag([1.5, 1.0, 1.0]))
    velocity = random_field(np.random.default_rng(3), grid, size=2.0).ddf[None]
    there, back = (DisplacementField(integrate(v, 7)[0], grid) for v in (velocity, -velocity))
    points = spread(np.random.default_rng(4), grid, margin=5)
    torch.testing.assert_close(there.inverse()(points)[0], back(points)[0], rtol=0, atol=0.05)


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"ddf must have shape \(2, 23, 17\).*got \(3, 23, 17\)"):
        DisplacementField(torch.zeros(3, 23, 17), Grid((23, 17), np.eye(3)))
    with pytest.raises(ValueError, match="affine must be a 3 x 3"):
        Grid((4, 5), np.eye(4))
    for bad in (np.zeros((3, 3)), np.array([[1.0, 2, 0], [2, 4, 0], [0, 0, 1]]), np.diag([1.0, np.nan, 1])):
        with pytest.raises(ValueError, match="invertible"):
            Grid((4, 5), bad)
    with pytest.raises(ValueError, match="one number of axes"):
        chain([Affine.identity(2), Affine.identity(3)])
    with pytest.raises(ValueError, match="3 x 3 or 4 x 4"):
        Affine(np.eye(2))
    with pytest.raises(ValueError, match="no inverse"):
        Affine(np.zeros((3, 3))).inverse()


def test_a_voxel_is_the_measure_not_a_millimetre() -> None:
    """Grids of a microscope: five voxels apart is not one place, a thousandth of a voxel is."""
    for size in (1e-4, 1.0, 50.0):
        one = Grid((20, 30, 12), np.diag([size, size, 2 * size, 1]))
        for shift, same in ((5.0, False), (0.4, False), (5e-4, True)):
            affine = one.affine.copy()
            affine[0, 3] = shift * size
            assert one.matches(Grid(one.shape, affine)) is same
    smooth_image(np.random.default_rng(0), one)  # of a valid size
