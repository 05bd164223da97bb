"""Demons by ITK on known deformations and on a real pair."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fmirnet_monai.baselines import DemonsRegistrar
from fmirnet_monai.baselines.demons import FILTERS


@pytest.mark.parametrize("variant", FILTERS)
@pytest.mark.parametrize("kind", ["flipped", "oblique"])
@pytest.mark.parametrize("dims", [2, 3])
def test_known_deformation_is_found(dims: int, kind: str, variant: str, registers: Callable) -> None:
    registers(DemonsRegistrar(variant=variant, iterations=(40, 40), field_sigma=1.0), dims, kind)


@pytest.mark.parametrize("variant", FILTERS)
def test_smoothing_smooths(variant: str, case: Callable) -> None:
    moving, fixed, _, _ = case(2)

    def roughness(**settings: float) -> float:
        ddf = DemonsRegistrar(variant=variant, iterations=(30, 30), **settings).estimate(moving, fixed)[1].ddf
        return float(ddf.diff(n=2, dim=1).pow(2).mean())

    bare = roughness(field_sigma=0.0)
    assert roughness(field_sigma=3.0) < 0.5 * roughness(field_sigma=1.0) < 0.5 * bare
    assert roughness(field_sigma=0.0, update_sigma=2.0) < 0.5 * bare


def test_same_input_same_numbers(repeats: Callable) -> None:
    repeats(DemonsRegistrar())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "fast"}, r"variant must be one of .*got 'fast'"),
        ({"iterations": (0, 0)}, r"iterations must be one whole number a level.*got \(0, 0\)"),
        ({"field_sigma": -1.0}, "field_sigma must be at least 0, got -1.0"),
        ({"update_sigma": -1.0}, "update_sigma must be at least 0, got -1.0"),
    ],
)
def test_wrong_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DemonsRegistrar(**settings)


@pytest.mark.realdata
def test_real_slices(dice_gain: Callable) -> None:
    assert dice_gain(DemonsRegistrar()) > 0.05
