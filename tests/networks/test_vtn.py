"""VTN's subnetwork and its recursive cascade; the cascade itself is tested in test_cascade.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fmirnet_monai.networks import RecursiveCascade
from fmirnet_monai.networks.vtn import VTNSubnetwork
from fmirnet_monai.spatial import compose, warp


@pytest.mark.parametrize(
    ("dims", "channels", "coarsest"),
    [(2, (4, 6, 8, 10), (2, 3)), (2, (4,), (16, 24)), (3, (4, 6, 8), (4, 6, 2))],
)
def test_subnetwork_halves_once_a_level_and_comes_back(
    dims: int, channels: tuple[int, ...], coarsest: tuple[int, ...]
) -> None:
    net = VTNSubnetwork(dims, 2, channels)
    x = torch.rand(2, 2, *(32, 48, 16)[:dims])
    features = x
    for down in net.down:
        features = down(features)
    assert features.shape == (2, channels[-1], *coarsest)
    assert net(x).shape == (2, dims, *x.shape[2:])


def test_subnetwork_sees_as_far_as_its_levels_reach() -> None:
    """A change in one corner reaches the far corner only through the coarse levels."""

    def change(channels: tuple[int, ...]) -> float:
        net = VTNSubnetwork(2, 2, channels)
        nn.init.normal_(net.head.weight)
        x = torch.rand(1, 2, 64, 64)
        altered = x.clone()
        altered[..., 0, 0] += 10.0
        return (net(altered) - net(x)).abs()[..., 48:, 48:].max().item()

    assert change((4, 4)) == 0
    assert change((4, 4, 4, 4, 4)) > 0


@pytest.mark.parametrize("level", [0, 1])
def test_flow_predicted_at_a_coarse_level_is_brought_up(level: int) -> None:
    net = VTNSubnetwork(2, 2, (4, 6, 8))
    nn.init.normal_(net.head.weight)
    x = torch.rand(1, 2, 16, 16)
    before = net(x)
    with torch.no_grad():
        net.up[level].flow.bias += 1.0
    assert (net(x) - before).abs().max() > 1e-3


def test_stages_are_composed_as_documented() -> None:
    net = RecursiveCascade(2, 1, (4, 6), stages=2)
    for stage in net.stages:
        nn.init.normal_(stage.head.weight, std=0.5)
    x = torch.rand(1, 2, 16, 12)
    first = net.stages[0](x)
    second = net.stages[1](torch.cat([warp(x[:, :1], first), x[:, 1:]], dim=1))
    assert first.abs().max() > 0.3
    torch.testing.assert_close(net(x), compose(first, second))


def test_empty_options_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"channels .*\(\)"):
        RecursiveCascade(channels=())
    with pytest.raises(ValueError, match=r"stages .*0"):
        RecursiveCascade(stages=0)
