"""Discrete search finds what lies too far away for descent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fmirnet_monai.registration import AffineOptimizer, DenseOptimizer, DiscreteSearch
from fmirnet_monai.spatial import identity_grid, smooth, warp


def texture(*size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    image = smooth(torch.randn(1, 1, *size, generator=generator), 2.0)
    return (image - image.min()) / (image.max() - image.min())


def shifted(dims: int) -> tuple[Tensor, Tensor, list[int]]:
    """Two windows of one texture, and the displacement from the second to the first."""
    shift = {2: [12, -7], 3: [7, -5, 5]}[dims]
    whole = texture(*[{2: 100, 3: 72}[dims]] * dims)
    size = {2: 72, 3: 52}[dims]
    first = [slice(13, 13 + size)] * dims
    second = [slice(13 + s, 13 + s + size) for s in shift]
    return whole[(..., *first)], whole[(..., *second)], shift


def half_a_coarse_voxel(image: Tensor) -> float:
    """From its centre to a corner."""
    return (image.dim() - 2) ** 0.5 * image.shape[2] / 16 / 2


def error(ddf: Tensor, shift: list[int]) -> Tensor:
    truth = torch.tensor(shift, dtype=torch.float32).reshape(1, -1, *[1] * len(shift))
    inner = (slice(None), slice(None), *[slice(13, -13)] * len(shift))  # where both see
    return (ddf - truth)[inner].norm(dim=1)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_shift_that_descent_alone_does_not_find(dims: int) -> None:
    moving, fixed, shift = shifted(dims)
    optimizer = DenseOptimizer("mse", (30, 30))
    start = DiscreteSearch()(moving, fixed)
    assert error(start, shift).median() < half_a_coarse_voxel(moving)
    assert error(optimizer(moving, fixed, start), shift).median() < 0.5
    assert error(optimizer(moving, fixed), shift).median() > 4


@pytest.mark.parametrize("dims", [2, 3])
def test_the_start_that_fits_better_after_a_coarse_descent_is_followed_item_by_item(dims: int) -> None:
    moving, fixed, shift = shifted(dims)
    near = warp(moving, smooth(2 * torch.randn(1, dims, *moving.shape[2:]), 6.0))
    alone = DenseOptimizer("mse", (30, 30))
    several = DenseOptimizer("mse", (30, 30), starts=[DiscreteSearch(), lost])
    found = several(torch.cat([moving, moving]), torch.cat([fixed, near]))
    assert error(found[:1], shift).median() < 0.5
    torch.testing.assert_close(found[1:], alone(moving, near), rtol=0, atol=0.05)
    assert torch.equal(DenseOptimizer("mse", (30, 30), starts=[lost])(moving, near), alone(moving, near))


def lost(moving: Tensor, fixed: Tensor, **masks: Tensor | None) -> Tensor:
    """A start that leads far from anything."""
    return torch.full((len(moving), moving.dim() - 2, *moving.shape[2:]), 15.0)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_turn_is_found_from_the_affine_start(dims: int) -> None:
    moving = smooth(texture(*[{2: 72, 3: 40}[dims]] * dims), 4.0)
    moving = (moving - moving.min()) / (moving.max() - moving.min())
    places = identity_grid(moving.expand(1, dims, *moving.shape[2:])) - moving.shape[2] / 2
    turn = torch.eye(dims)
    turn[:2, :2] = torch.tensor([[0.7071, -0.7071], [0.7071, 0.7071]])
    truth = torch.einsum("ij,bj...->bi...", turn - torch.eye(dims), places)
    fixed = warp(moving, truth)
    inner = (slice(None), slice(None), *[slice(12, -12)] * dims)
    errors = [
        (DenseOptimizer("mse", (30, 30), starts=starts)(moving, fixed) - truth)[inner].norm(dim=1).mean()
        for starts in ([], [AffineOptimizer("mse", (100, 50, 0))])
    ]
    assert errors[0] > 2
    assert errors[1] < 0.5


def test_it_does_not_depend_on_what_intensities_mean() -> None:
    moving, fixed, shift = shifted(2)
    assert error(DiscreteSearch()(moving, 1 - fixed), shift).median() < half_a_coarse_voxel(moving)


def test_what_is_masked_says_nothing() -> None:
    moving, fixed, shift = shifted(2)
    mask = torch.ones_like(fixed)
    mask[:, :, :24] = 0
    spoilt = torch.where(mask > 0, fixed, texture(72, 72, seed=1))
    search = DiscreteSearch()
    found = search(moving, spoilt, fixed_mask=mask)
    assert (found - search(moving, fixed, fixed_mask=mask)).abs().max() < 1e-4
    assert error(found, shift).median() < half_a_coarse_voxel(moving)
    assert not search(moving, fixed, moving_mask=torch.zeros_like(mask), fixed_mask=mask).any()


def test_items_of_a_batch_are_searched_by_themselves() -> None:
    moving, fixed, _ = shifted(2)
    search = DiscreteSearch(12, 3)
    both = search(torch.cat([moving, fixed]), torch.cat([fixed, fixed]))
    torch.testing.assert_close(both, torch.cat([search(moving, fixed), search(fixed, fixed)]))
    assert not both[1].any()


def test_nothing_to_search_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        DiscreteSearch(reach=0)
