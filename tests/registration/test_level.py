"""A level's short ways, against the functions that they stand for."""

from __future__ import annotations

import pytest
import torch

from fmirnet_monai.registration.level import Level
from fmirnet_monai.spatial import compose, smooth, warp


@pytest.mark.parametrize("size", [(37, 29), (11, 19, 14)])
def test_fields_are_applied_and_composed_as_everywhere(size: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 1, *size, generator=generator)
    outer, inner = (smooth(8 * torch.randn(2, len(size), *size, generator=generator), 2.0) for _ in range(2))
    level = Level(image, image, None, None, 1, torch.ones(()))
    torch.testing.assert_close(level.through(image, outer), warp(image, outer), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(level.compose(outer, inner), compose(outer, inner), rtol=1e-4, atol=1e-4)


def test_half_a_voxel_beyond_the_outermost_centres_is_seen_and_no_more() -> None:
    image = torch.rand(1, 1, 8, 6)
    level = Level(image, image, None, None, 1, torch.ones(()))
    for axis, last in enumerate(image.shape[2:]):
        for shift, seen in ((-0.49, True), (-0.51, False)):
            ddf = torch.zeros(1, 2, 8, 6)
            ddf[:, axis] = shift
            assert bool(level.seen(ddf).select(axis + 2, 0).all()) is seen
            assert bool(level.seen(-ddf).select(axis + 2, last - 1).all()) is seen
            assert level.seen(ddf).narrow(axis + 2, 1, last - 1).all()
