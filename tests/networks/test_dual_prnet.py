"""Dual-PRNet: the shared streams, and how fields are refined."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fmirnet_monai.networks import DualPRNet
from fmirnet_monai.networks.blocks import local_correlation
from fmirnet_monai.spatial import compose, upsample_field, warp


def small(dims: int = 2, correlation: bool = True) -> DualPRNet:
    """A small network whose fields are some voxels large."""
    net = DualPRNet(dims, channels=(4, 8), correlation=correlation)
    for module in net.registration:
        nn.init.normal_(module[-1].weight, std=0.5)
    return net


@pytest.mark.parametrize("correlation", [False, True])
@pytest.mark.parametrize("size", [(16, 12), (8, 6, 4)])
def test_levels_refine_the_field_as_documented(size: tuple[int, ...], correlation: bool) -> None:
    net = small(len(size), correlation)
    x = torch.rand(2, 2, *size)
    moving, fixed = net.streams.pyramid(x[:, :1]), net.streams.pyramid(x[:, 1:])

    def estimate(level: int, features: torch.Tensor) -> torch.Tensor:
        maps = [local_correlation(fixed[level], features)] if correlation else []
        return net.registration[level](torch.cat([features, fixed[level], *maps], dim=1))

    coarse = upsample_field(estimate(0, moving[0]))
    expected = compose(coarse, estimate(1, warp(moving[1], coarse)))
    assert coarse.abs().max() > 0.3
    torch.testing.assert_close(net(x), expected)


def test_pyramid_halves_from_level_to_level() -> None:
    net = DualPRNet(2, in_channels=3, channels=(4, 6, 8))
    shapes = [tuple(features.shape) for features in net.streams.pyramid(torch.rand(2, 3, 16, 24))]
    assert shapes == [(2, 8, 4, 6), (2, 6, 8, 12), (2, 4, 16, 24)]


@pytest.mark.parametrize("dims", [2, 3])
def test_correlation_adds_one_map_for_each_neighbour(dims: int) -> None:
    def count(correlation: bool) -> int:
        return sum(p.numel() for p in small(dims, correlation).parameters())

    assert count(True) - count(False) == 3**dims * 3**dims * (4 + 8)


def test_one_level_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"channels .*\(8,\)"):
        DualPRNet(channels=(8,))
