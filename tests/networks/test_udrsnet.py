"""UDRSNet: its stages are ResUnets of their own; the cascade itself is tested in test_cascade.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fmirnet_monai.networks import UDRSNet
from fmirnet_monai.networks.blocks import ResUNet
from fmirnet_monai.spatial import compose, warp


def small(dims: int, stages: int) -> UDRSNet:
    """A small network whose fields are some voxels large."""
    net = UDRSNet(dims, channels=(4, 8), stages=stages)
    for stage in net.stages:
        nn.init.normal_(stage.head.weight, std=0.3)
    return net


@pytest.mark.parametrize("size", [(16, 12), (8, 12, 4)])
def test_two_stages_are_composed_as_documented(size: tuple[int, ...]) -> None:
    net = small(len(size), 2)
    x = torch.rand(1, 2, *size)
    first = net.stages[0](x)
    second = net.stages[1](torch.cat([warp(x[:, :1], first), x[:, 1:]], dim=1))
    assert first.abs().max() > 0.5 and second.abs().max() > 0.5
    torch.testing.assert_close(net(x), compose(first, second))


@pytest.mark.parametrize("stages", [1, 3])
def test_each_stage_has_weights_of_its_own(stages: int) -> None:
    alone = sum(p.numel() for p in ResUNet(2, 2, 2, (4, 8)).parameters())
    assert sum(p.numel() for p in small(2, stages).parameters()) == stages * alone


def test_no_stage_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stages .*0"):
        UDRSNet(stages=0)
