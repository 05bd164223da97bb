"""Demons by ITK, and those of local correlation, on known deformations and on a real pair."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fmirnet_monai.baselines import DemonsRegistrar, LCCDemonsRegistrar
from fmirnet_monai.baselines.demons import FILTERS, LogDomainOptimizer
from fmirnet_monai.registration import PairRegistrar
from fmirnet_monai.registration.level import Level
from fmirnet_monai.spatial import compose, integrate, smooth


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


@pytest.mark.parametrize(("dims", "kind"), [(2, "flipped"), (2, "oblique"), (3, "oblique")])
def test_local_correlation_finds_a_known_deformation(dims: int, kind: str, registers: Callable) -> None:
    registers(LCCDemonsRegistrar(iterations=(40, 40)), dims, kind)


def test_what_a_level_adds_in_the_log_domain_has_its_inverse() -> None:
    generator = torch.Generator().manual_seed(0)
    start, velocity, update = (smooth(10 * torch.randn(1, 2, 40, 40, generator=generator), 4.0) for _ in range(3))
    optimizer = LogDomainOptimizer("mse", (1,), field_sigma=0.0)
    level = Level(start[:, :1], start[:, :1], None, None, 1, torch.ones(()))
    moved, added = optimizer.moved(level, start, start, velocity, update)
    torch.testing.assert_close(added, velocity + update)
    undone = compose(moved, integrate(-added, optimizer.squarings))[..., 8:-8, 8:-8]
    torch.testing.assert_close(undone, start[..., 8:-8, 8:-8], rtol=0, atol=0.1)


@pytest.mark.parametrize("registrar", [DemonsRegistrar(), LCCDemonsRegistrar()], ids=["itk", "lcc"])
def test_same_input_same_numbers(registrar: PairRegistrar, repeats: Callable) -> None:
    repeats(registrar)


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 4}, "window must be odd and at least 3 voxels, got 4"),
        ({"step": 1.0}, "step must be between 0 and 1 voxel, got 1.0"),
        ({"iterations": ()}, r"iterations must be one whole number a level.*got \(\)"),
        ({"update_sigma": -1.0}, "update_sigma must be at least 0, got -1.0"),
        ({"field_sigma": -1.0}, "field_sigma must be at least 0, got -1.0"),
    ],
)
def test_wrong_settings_of_local_correlation_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LCCDemonsRegistrar(**settings)


@pytest.mark.realdata
@pytest.mark.parametrize("registrar", [DemonsRegistrar(), LCCDemonsRegistrar()], ids=["itk", "lcc"])
def test_real_slices(registrar: PairRegistrar, dice_gain: Callable) -> None:
    assert dice_gain(registrar) > 0.05
