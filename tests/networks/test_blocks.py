"""Building blocks of FMIRNet: the ResUnet and the two attentions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fmirnet_monai.networks.blocks import ResUNet, ScaleAttention, SpatialAttention


@pytest.mark.parametrize("channels", [(4, 8), (4, 6, 8), (2, 3, 4, 5)])
@pytest.mark.parametrize("size", [(16, 24), (15, 7), (2, 3), (7, 10, 5), (2, 2, 2)])
def test_resunet_keeps_any_size(size: tuple[int, ...], channels: tuple[int, ...]) -> None:
    net = ResUNet(len(size), in_channels=3, out_channels=5, channels=channels)
    assert net(torch.rand(2, 3, *size)).shape == (2, 5, *size)


def test_resunet_without_head_weights_gives_its_bias() -> None:
    net = ResUNet(2, 2, 2, (4, 8))
    nn.init.zeros_(net.head.weight)
    net.head.bias.data = torch.tensor([1.0, -2.0])
    expected = torch.tensor([1.0, -2.0]).reshape(1, 2, 1, 1).expand(1, 2, 9, 8)
    assert torch.equal(net(torch.rand(1, 2, 9, 8)), expected)


def test_resunet_sees_as_far_as_its_levels_reach() -> None:
    """A change in one corner reaches the far corner only through the coarse levels."""

    def change(channels: tuple[int, ...]) -> float:
        net = ResUNet(2, 1, 1, channels)
        nn.init.normal_(net.head.weight)
        x = torch.rand(1, 1, 48, 48)
        altered = x.clone()
        altered[..., 0, 0] += 10.0
        return (net(altered) - net(x)).abs()[..., 28:, 28:].max().item()

    assert change((4, 4)) == 0
    assert change((4, 4, 4, 4)) > 0


def test_resunet_refuses_one_level_by_name() -> None:
    with pytest.raises(ValueError, match=r"channels .*\(8,\)"):
        ResUNet(2, 2, 2, (8,))


@pytest.mark.parametrize("size", [(8, 9), (5, 6, 7)])
def test_spatial_attention_weights_are_between_zero_and_one(size: tuple[int, ...]) -> None:
    field = torch.randn(2, len(size), *size)
    weight = SpatialAttention(len(size), residual=False)(field) / field
    assert weight.shape == field.shape
    assert 0 < weight.min() < weight.max() < 1


def test_spatial_attention_with_residual_adds_the_field() -> None:
    field = torch.randn(1, 2, 8, 9)
    gated, added = SpatialAttention(2, residual=False), SpatialAttention(2, residual=True)
    added.load_state_dict(gated.state_dict())
    torch.testing.assert_close(added(field), field + gated(field))


def test_scale_attention_starts_with_the_weight_one() -> None:
    increment = torch.randn(2, 3, 4, 5, 6)
    assert torch.equal(ScaleAttention()(torch.randn_like(increment), increment), increment)


def test_scale_attention_gives_each_case_one_weight() -> None:
    attention = ScaleAttention()
    nn.init.normal_(attention.gate[2].weight)
    coarser, increment = torch.randn(3, 2, 8, 9), torch.randn(3, 2, 8, 9) * torch.tensor([0.1, 1, 5]).view(3, 1, 1, 1)
    weight = (attention(coarser, increment) / increment).flatten(1)
    torch.testing.assert_close(weight, weight[:, :1].expand_as(weight))
    assert weight[:, 0].unique().numel() == 3
    assert 0 < weight.min() < weight.max() < 2
    # the gate sees magnitudes, so the sign of a field makes no difference to its weight
    torch.testing.assert_close(attention(-coarser, -increment), -attention(coarser, increment))
