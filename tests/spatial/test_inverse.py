"""The inverse of fields that stretch strongly, against np.interp, which inverts a monotone line exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fmirnet_monai.spatial import DisplacementField, Grid, chain, digital_jacobian_determinants, invert, smooth
from fmirnet_monai.spatial.inverse import FieldInverse

from .conftest import random_affine, random_field, random_grid


def line(n: int, stretch: float, rng: np.random.Generator) -> NDArray:
    """Where the voxels 0..n-1 go: monotone, onto 0..n-1, some steps ``stretch`` times as long as the shortest."""
    steps = stretch ** rng.uniform(0, 1, n - 1)
    ends = np.concatenate([[0.0], np.cumsum(steps)])
    return ends * (n - 1) / ends[-1]


def voxels(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.indices(shape).reshape(len(shape), -1).T.astype(float))


@pytest.mark.parametrize(("size", "stretch"), [((60, 47), 50.0), ((19, 24, 17), 20.0)])
def test_strongly_stretching_field(size: tuple[int, ...], stretch: float) -> None:
    rng = np.random.default_rng(0)
    lines = [line(n, stretch, rng) for n in size]
    ddf = np.stack(np.meshgrid(*[e - np.arange(len(e)) for e in lines], indexing="ij"))
    source, found = FieldInverse(torch.from_numpy(ddf), tolerance=1e-6)(voxels(size))
    assert found.all()
    exact = [np.interp(np.arange(len(e)), e, np.arange(len(e))) for e in lines]
    expected = np.stack(np.meshgrid(*exact, indexing="ij"), axis=-1).reshape(-1, len(size))
    assert np.abs(source.numpy() - expected).max() < 1e-4


def swirl() -> torch.Tensor:
    """Nearly a whole turn."""
    y, x = np.mgrid[-70:71, -70:71].astype(float)
    angle = 6.0 * np.exp(-(x**2 + y**2) / 1800)
    turned = np.stack([np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x])
    return torch.from_numpy(turned - np.stack([y, x]))


def test_points_that_get_stuck_start_again_where_the_images_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    ddf = swirl()
    source, found = FieldInverse(ddf)(voxels((141, 141)))
    assert found.all()
    there = source.T.reshape(1, 2, 141, 141)
    assert there.isfinite().all()
    monkeypatch.setattr(FieldInverse, "_nearest", lambda self, goal, rank: goal)
    assert not FieldInverse(ddf)(voxels((141, 141)))[1].all()


@pytest.mark.parametrize("seed", range(6))
def test_a_folding_field_that_keeps_the_border_meets_every_point(seed: int) -> None:
    rise = torch.minimum(torch.arange(60), 59 - torch.arange(60)).clamp(max=10) / 10
    noise = torch.randn(1, 2, 60, 60, generator=torch.Generator().manual_seed(seed))
    ddf = 18 * smooth(noise, 3.0)[0] * rise[:, None] * rise
    assert digital_jacobian_determinants(ddf[None]).min() < 0
    assert FieldInverse(ddf)(voxels((60, 60)))[1].all()


def test_where_a_field_folds_some_points_are_met_twice_and_all_are_met() -> None:
    """A line that turns back: every point between the ends has a preimage, none beyond them."""
    ends = np.concatenate([np.linspace(0, 30, 31), np.linspace(30, 10, 20), np.linspace(10, 29, 20)])
    ddf = torch.from_numpy(ends - np.arange(len(ends)))[None, :, None].expand(1, -1, 5)
    field = torch.cat([ddf, torch.zeros_like(ddf)])
    goal = torch.stack([torch.linspace(0.5, 29.5, 59), torch.full((59,), 2.0)], 1).double()
    source, found = FieldInverse(field)(goal)
    assert found.all()
    assert np.abs(np.interp(source[:, 0].numpy(), np.arange(len(ends)), ends) - goal[:, 0].numpy()).max() < 0.02


@pytest.mark.parametrize("dims", [2, 3])
def test_there_and_back_is_measured(dims: int) -> None:
    rng = np.random.default_rng(dims)
    grid = random_grid(rng, dims)
    whole = chain([random_field(rng, grid), random_affine(rng, dims, grid)])
    moving = random_grid(rng, dims)
    affine = moving.affine.copy()
    middle = whole(torch.from_numpy(grid.to_world((np.array(grid.shape)[None] - 1) / 2)))[0][0].numpy()
    affine[:-1, -1] += middle - moving.to_world((np.array(moving.shape) - 1) / 2)
    moving = Grid(moving.shape, affine)
    inversion = invert(whole, moving)
    back, _ = DisplacementField.of(whole.inverse(), moving)
    torch.testing.assert_close(inversion.field.ddf, back.ddf)
    goal = torch.from_numpy(moving.points())
    source = torch.from_numpy(moving.to_world(voxels(moving.shape).numpy() + inversion.field.ddf.flatten(1).T.numpy()))
    inside = grid.contains(source)
    assert torch.equal(inside, inversion.inside.flatten())
    assert inversion.missing == int((~inside).sum())
    missed = (moving.to_voxel(whole(source)[0]) - moving.to_voxel(goal)).norm(dim=1)[inside].max()
    assert inversion.residual == pytest.approx(float(missed), abs=1e-4)
    assert inversion.residual < 0.05


def test_a_map_that_leads_off_its_grid_is_inverted_where_it_can_be() -> None:
    """A turn by 20 degrees and a shift by three grids, as a field: exact, on the moving image's grid."""
    fixed = Grid((24, 20, 15), np.diag([2.0, 2.0, 3.0, 1.0]))
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.35), -np.sin(0.35)], [np.sin(0.35), np.cos(0.35)]]
    turn[:3, 3] = [150, 0, 40]
    points = fixed.points()
    vectors = points @ turn[:3, :3].T + turn[:3, 3] - points
    field = DisplacementField.from_world_vectors(vectors.reshape(*fixed.shape, 3), fixed)
    affine = fixed.affine.copy()
    affine[:3, 3] = turn[:3, 3]
    moving = Grid(fixed.shape, affine)
    inversion = invert(field, moving)
    exact = (moving.points() - turn[:3, 3]) @ turn[:3, :3]
    found = moving.points() + inversion.field.world_vectors().reshape(-1, 3)
    places = fixed.to_voxel(exact)
    beyond = np.abs(places - (np.array(fixed.shape) - 1) / 2) - np.array(fixed.shape) / 2
    inside = inversion.inside.flatten().numpy()
    assert inside[(beyond < -0.5).all(1)].all() and not inside[(beyond > 0.5).any(1)].any()
    assert 0.5 < inside.mean() < 0.95
    core = (beyond < -0.5).all(1)
    assert np.linalg.norm(found - exact, axis=1)[core].max() < 0.05  # mm
    nowhere = invert(field, fixed)
    assert nowhere.missing == np.prod(fixed.shape) and np.isnan(nowhere.residual)
