"""Greedy on known deformations and on a real pair."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fmirnet_monai.baselines import GreedyRegistrar


@pytest.mark.parametrize(
    ("dims", "kind", "metric"),
    [(2, "flipped", "NCC"), (2, "oblique", "NCC"), (2, "oblique", "SSD"), (3, "oblique", "NCC")],
)
def test_known_deformation_is_found(dims: int, kind: str, metric: str, registers: Callable) -> None:
    registers(GreedyRegistrar(metric=metric, iterations=(40, 40)), dims, kind)


def test_same_input_same_numbers(repeats: Callable) -> None:
    repeats(GreedyRegistrar(iterations=(20, 10)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "mse"}, r"metric must be one of .*got 'mse'"),
        ({"radius": 0}, "radius must be at least 1 voxel, got 0"),
        ({"iterations": (0, 0)}, r"iterations must be one whole number a level.*got \(0, 0\)"),
        ({"update_sigma": -1.0}, "update_sigma must be at least 0, got -1.0"),
        ({"field_sigma": -1.0}, "field_sigma must be at least 0, got -1.0"),
    ],
)
def test_wrong_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GreedyRegistrar(**settings)


@pytest.mark.realdata
def test_real_slices(dice_gain: Callable) -> None:
    assert dice_gain(GreedyRegistrar()) > 0.05
