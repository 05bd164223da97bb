"""Discrete search finds what lies too far away for descent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fmirnet_monai.registration import DenseOptimizer
from fmirnet_monai.registration.search import DiscreteSearch
from fmirnet_monai.spatial import smooth


def texture(*size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    image = smooth(torch.randn(1, 1, *size, generator=generator), 2.0)
    return (image - image.min()) / (image.max() - image.min())


def shifted(dims: int) -> tuple[Tensor, Tensor, list[int]]:
    """Two windows of one texture, and the displacement from the second to the first."""
    shift = {2: [12, -7], 3: [9, -6, 7]}[dims]
    whole = texture(*[{2: 100, 3: 66}[dims]] * dims)
    size = {2: 72, 3: 40}[dims]
    first = [slice(13, 13 + size)] * dims
    second = [slice(13 + s, 13 + s + size) for s in shift]
    return whole[(..., *first)], whole[(..., *second)], shift


def error(ddf: Tensor, shift: list[int]) -> Tensor:
    truth = torch.tensor(shift, dtype=torch.float32).reshape(1, -1, *[1] * len(shift))
    inner = (slice(None), slice(None), *[slice(13, -13)] * len(shift))  # where both see
    return (ddf - truth)[inner].norm(dim=1)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_shift_that_descent_alone_does_not_find(dims: int) -> None:
    moving, fixed, shift = shifted(dims)
    optimizer = DenseOptimizer("mse", (30, 30))
    start = DiscreteSearch()(moving, fixed)
    assert error(start, shift).median() < 2
    assert error(optimizer(moving, fixed, start), shift).median() < 0.5
    assert error(optimizer(moving, fixed), shift).median() > 4


def test_it_does_not_depend_on_what_intensities_mean() -> None:
    moving, fixed, shift = shifted(2)
    assert error(DiscreteSearch()(moving, 1 - fixed), shift).median() < 2


def test_what_is_masked_says_nothing() -> None:
    moving, fixed, shift = shifted(2)
    mask = torch.ones_like(fixed)
    mask[:, :, :24] = 0
    spoilt = torch.where(mask > 0, fixed, texture(72, 72, seed=1))
    search = DiscreteSearch()
    found = search(moving, spoilt, None, mask)
    assert (found - search(moving, fixed, None, mask)).abs().max() < 1e-4
    assert error(found, shift).median() < 2
    assert not search(moving, fixed, torch.zeros_like(mask), mask).any()


def test_items_of_a_batch_are_searched_by_themselves() -> None:
    moving, fixed, _ = shifted(2)
    search = DiscreteSearch(12, 3)
    both = search(torch.cat([moving, fixed]), torch.cat([fixed, fixed]))
    torch.testing.assert_close(both, torch.cat([search(moving, fixed), search(fixed, fixed)]))
    assert not both[1].any()


def test_nothing_to_search_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        DiscreteSearch(reach=0)
