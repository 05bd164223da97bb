"""The local correlation against a plain loop, where it is largest, and its learnt features."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from fmirnet_monai.networks.blocks import LocalCorrelation, local_correlation


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("size", [(7, 5), (4, 6, 5), (1, 3)])
def test_correlation_equals_a_loop_over_offsets(size: tuple[int, ...], radius: int) -> None:
    fixed, moving = torch.randn(2, 2, 3, *size)
    dims = len(size)
    padded = np.pad(moving.numpy(), [(0, 0), (0, 0), *[(radius, radius)] * dims], mode="edge")
    expected = []
    for offset in product(range(-radius, radius + 1), repeat=dims):
        window = tuple(slice(radius + o, radius + o + n) for o, n in zip(offset, size, strict=True))
        expected.append((fixed.numpy() * padded[(slice(None), slice(None), *window)]).mean(1))
    torch.testing.assert_close(local_correlation(fixed, moving, radius), torch.from_numpy(np.stack(expected, 1)))


@pytest.mark.parametrize(("offset", "index"), [((1, 0), 7), ((0, -1), 3), ((0, 0), 4), ((-1, 1), 2)])
def test_correlation_is_largest_at_the_displacement(offset: tuple[int, int], index: int) -> None:
    """Pull-back: the field points to where the moving image has what the fixed one has here."""
    fixed = torch.randn(1, 64, 10, 10)
    moving = torch.roll(fixed, offset, dims=(2, 3))
    best = local_correlation(fixed, moving).argmax(1)[..., 2:-2, 2:-2]
    assert (best == index).all()


@pytest.mark.parametrize("size", [(14, 12), (9, 8, 10)])
def test_learnt_correlation_is_a_cosine_and_one_at_the_displacement(size: tuple[int, ...]) -> None:
    dims = len(size)
    block = LocalCorrelation(dims, 2, radius=2)
    fixed = torch.rand(1, 2, *size)
    moving = torch.roll(fixed, (1,) * dims, dims=tuple(range(2, dims + 2)))
    maps = block(torch.cat([moving, fixed], dim=1))
    assert maps.shape == (1, block.out_channels, *size) == (1, 5**dims, *size)
    assert maps.abs().max() < 1 + 1e-5
    inside = (slice(None), slice(None), *[slice(3, -3)] * dims)
    offset = sum(3 * 5**axis for axis in range(dims))  # of one voxel along each axis
    torch.testing.assert_close(maps[inside][:, offset], torch.ones_like(maps[inside][:, offset]))
