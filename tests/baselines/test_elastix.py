"""B-splines by elastix on known deformations and on a real pair."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fmirnet_monai.baselines import ElastixRegistrar
from fmirnet_monai.baselines.elastix import METRICS


@pytest.mark.parametrize("kind", ["flipped", "oblique"])
@pytest.mark.parametrize("dims", [2, 3])
def test_known_deformation_is_found(dims: int, kind: str, registers: Callable) -> None:
    registers(ElastixRegistrar(iterations=100, levels=2, bending_weight=0.0), dims, kind)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_with_bending_energy(metric: str, registers: Callable) -> None:
    registers(ElastixRegistrar(metric=metric, levels=2, bending_weight=0.01), 2, "oblique")


def test_bending_energy_and_wide_knots_smooth(case: Callable) -> None:
    moving, fixed, _, _ = case(2)

    def roughness(**settings: float) -> float:
        ddf = ElastixRegistrar(iterations=100, levels=2, **settings).estimate(moving, fixed)[1].ddf
        return float(ddf.diff(n=2, dim=1).pow(2).mean())

    assert roughness(bending_weight=1.0) < 0.8 * roughness(bending_weight=0.0)
    assert roughness(grid_spacing=16.0) < 0.8 * roughness(grid_spacing=6.0)


@pytest.mark.parametrize("samples", [500, 0])
def test_same_input_same_numbers(samples: int, repeats: Callable) -> None:
    repeats(ElastixRegistrar(iterations=30, levels=2, samples=samples))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "MSE"}, r"metric must be one of .*got 'MSE'"),
        ({"grid_spacing": 0.5}, "grid_spacing must be at least 1 voxel, got 0.5"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"levels": 0}, "levels must be at least 1, got 0"),
        ({"bending_weight": -1.0}, "bending_weight must be at least 0, got -1.0"),
        ({"samples": -1}, r"samples must be at least 0 \(every voxel\), got -1"),
        ({"affine": "yes"}, "affine must be one of"),
    ],
)
def test_wrong_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ElastixRegistrar(**settings)


@pytest.mark.realdata
def test_real_slices(dice_gain: Callable) -> None:
    assert dice_gain(ElastixRegistrar()) > 0.05
