"""LapIRN: its levels, how they pass on what they found, and which of them take part and learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fmirnet_monai.networks import LapIRN
from fmirnet_monai.spatial import downsample, integrate, upsample_field, warp


def small(dims: int = 2, std: float = 0.05, **options: Any) -> LapIRN:
    """A small network whose fields are some voxels large."""
    net = LapIRN(dims, features=4, **{"blocks": 1, "integration_steps": 4, "max_velocity": 4.0, **options})
    for level in net.levels:
        nn.init.normal_(level.decoder[-1].weight, std=std)
    return net


@pytest.mark.parametrize("size", [(24, 16), (8, 16, 8)])
def test_one_active_level_gives_the_coarsest_field_brought_to_full_resolution(size: tuple[int, ...]) -> None:
    net = small(len(size), std=1.0)
    x = torch.rand(2, 2, *size)
    net.set_levels(1)
    raw, _ = net.levels[0](downsample(downsample(x)), None)
    field = integrate(4.0 / 4 * F.softsign(raw), 4)
    expected = upsample_field(upsample_field(field))
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("integration_steps", [0, 4])
def test_next_level_adds_to_the_velocity_of_the_coarser_one(integration_steps: int) -> None:
    net = small(std=1.0, levels=2, integration_steps=integration_steps)
    x = torch.rand(1, 2, 16, 20)
    raw, embedding = net.levels[0](downsample(x), None)
    coarse = 2.0 * F.softsign(raw)
    velocity, field = upsample_field(coarse), upsample_field(integrate(coarse, integration_steps))
    raw, _ = net.levels[1](torch.cat([warp(x[:, :1], field), x[:, 1:], velocity], dim=1), embedding)
    torch.testing.assert_close(net(x), integrate(velocity + 4.0 * F.softsign(raw), integration_steps))


def test_levels_that_do_not_take_part_do_not_matter() -> None:
    net = small()
    x = torch.rand(1, 2, 16, 24)
    fields = []
    for active in (1, 2, 3):
        net.set_levels(active)
        fields.append(net(x))
    assert not torch.equal(fields[0], fields[1]) and not torch.equal(fields[1], fields[2])
    net.set_levels(2)
    nn.init.normal_(net.levels[2].decoder[-1].weight)
    assert torch.equal(net(x), fields[1])


def test_features_of_a_level_reach_the_next_one() -> None:
    """Where the coarse level's own field stays zero, its features still change the finer level's."""
    net = small(levels=2)
    nn.init.zeros_(net.levels[0].decoder[-1].weight)
    x = torch.rand(1, 2, 16, 16)
    before = net(x)
    nn.init.normal_(net.levels[0].up.weight)
    assert (net(x) - before).abs().max() > 1e-3


@pytest.mark.parametrize("levels", [1, 3])
def test_each_level_adds_no_more_than_the_largest_velocity(levels: int) -> None:
    net = small(std=100.0, levels=levels, integration_steps=0)
    largest = net(torch.rand(1, 2, 32, 32)).abs().max()
    assert 0.5 * 4.0 < largest < levels * 4.0


@pytest.mark.parametrize("active", [1, 2, 3])
def test_state_dict_restores_the_levels_that_take_part(active: int) -> None:
    first, second = small(), small()
    first.set_levels(active)
    second.load_state_dict(first.state_dict())
    x = torch.rand(1, 2, 17, 11)
    assert int(second.active_levels) == active
    assert torch.equal(second(x), first(x))
    scripted = torch.jit.script(second)
    torch.testing.assert_close(scripted(x), first(x), atol=1e-5, rtol=1e-4)


def gradients(net: LapIRN) -> list[bool]:
    """For each level, whether all of its weights, or none, have a gradient."""
    found = [{p.grad is not None and bool(p.grad.any()) for p in level.parameters()} for level in net.levels]
    assert all(len(each) == 1 for each in found)
    return [each.pop() for each in found]


@pytest.mark.parametrize(
    ("active", "frozen", "expected"),
    [(1, 0, "100"), (2, 0, "110"), (2, 1, "010"), (3, 0, "111"), (3, 1, "011"), (3, 2, "001")],
)
def test_only_active_levels_that_are_not_frozen_get_a_gradient(active: int, frozen: int, expected: str) -> None:
    net = small()
    net.set_levels(active, frozen)
    net(torch.rand(1, 2, 16, 16)).square().sum().backward()
    assert gradients(net) == [digit == "1" for digit in expected]


def test_frozen_levels_stand_still_and_move_again() -> None:
    """Adam's momentum of earlier steps would move weights whose gradient is zero instead of missing."""
    net = small()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    x = torch.rand(1, 2, 16, 16)

    def step() -> list[bool]:
        before = [[p.clone() for p in level.parameters()] for level in net.levels]
        optimizer.zero_grad(set_to_none=False)  # as MONAI's trainer does
        F.mse_loss(warp(x[:, :1], net(x)), x[:, 1:]).backward()
        optimizer.step()
        pairs = zip(before, net.levels, strict=True)
        return [
            any(not torch.equal(a, b) for a, b in zip(old, level.parameters(), strict=True)) for old, level in pairs
        ]

    moved = []
    for active, frozen in ((1, 0), (2, 1), (2, 0), (3, 2), (3, 0)):
        net.set_levels(active, frozen)
        moved.append(step())
    expected = [
        (True, False, False),
        (False, True, False),
        (True, True, False),
        (False, False, True),
        (True, True, True),
    ]
    assert [tuple(each) for each in moved] == expected


@pytest.mark.parametrize(("active", "frozen"), [(0, 0), (4, 0), (2, 2), (1, -1)])
def test_levels_that_do_not_exist_are_refused(active: int, frozen: int) -> None:
    with pytest.raises(ValueError, match=f"active={active} and frozen={frozen}"):
        small().set_levels(active, frozen)


@pytest.mark.parametrize(
    ("options", "message"), [({"levels": 0}, "levels .*0"), ({"integration_steps": -1}, "integration_steps .*-1")]
)
def test_invalid_option_is_named_with_its_value(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LapIRN(**options)


def test_options_without_weights_show_in_the_networks_text() -> None:
    texts = {str(small(**options)) for options in ({}, {"integration_steps": 0}, {"max_velocity": 2.0})}
    assert len(texts) == 3
