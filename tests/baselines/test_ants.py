"""SyN and the time-varying velocity field by ANTs on known deformations and on a real pair."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fmirnet_monai.baselines import SynRegistrar, TimeVaryingRegistrar, ants


@pytest.mark.parametrize(("dims", "kind"), [(2, "flipped"), (2, "oblique"), (3, "oblique")])
def test_syn_finds_a_known_deformation(dims: int, kind: str, registers: Callable) -> None:
    registers(SynRegistrar(iterations=(40, 40), gradient_step=0.4), dims, kind)


@pytest.mark.parametrize(("dims", "kind"), [(2, "flipped"), (2, "oblique"), (3, "oblique")])
def test_time_varying_field_finds_a_known_deformation(dims: int, kind: str, registers: Callable) -> None:
    registers(TimeVaryingRegistrar(iterations=(20, 10), time_points=2), dims, kind)


@pytest.mark.parametrize("metric", ["CC", "mattes"])
def test_other_metrics(metric: str, registers: Callable) -> None:
    registers(SynRegistrar(metric=metric, radius=3), 2, "oblique")


@pytest.mark.parametrize("registrar", [SynRegistrar(iterations=(20, 10)), TimeVaryingRegistrar(iterations=(10, 5))])
def test_same_input_same_numbers_and_no_files_left(
    registrar: ants.AntsRegistrar, repeats: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    repeats(registrar)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "mse"}, r"metric must be one of .*got 'mse'"),
        ({"radius": 0}, "radius must be at least 1 voxel, got 0"),
        ({"iterations": ()}, r"iterations must be one whole number a level.*got \(\)"),
        ({"iterations": (10, -1)}, r"iterations must be one whole number a level.*got \(10, -1\)"),
        ({"gradient_step": 0.0}, "gradient_step must be above 0, got 0.0"),
        ({"flow_sigma": -1.0}, "flow_sigma must be at least 0, got -1.0"),
        ({"total_sigma": -1.0}, "total_sigma must be at least 0, got -1.0"),
    ],
)
def test_wrong_settings_are_named(settings: dict, message: str) -> None:
    for method in (SynRegistrar, TimeVaryingRegistrar):
        with pytest.raises(ValueError, match=message):
            method(**settings)


def test_wrong_number_of_time_points_is_named() -> None:
    with pytest.raises(ValueError, match="time_points must be 2 to 8, got 9"):
        TimeVaryingRegistrar(time_points=9)


def test_without_ants_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ants, "optional_import", lambda name: (None, False))
    with pytest.raises(ImportError, match=r"SyN needs ANTs: pip install 'fmirnet_monai\[ants\]'"):
        SynRegistrar()


@pytest.mark.realdata
@pytest.mark.parametrize(
    "registrar", [SynRegistrar(), TimeVaryingRegistrar(iterations=(30, 10), time_points=2)], ids=["SyN", "LDDMM"]
)
def test_real_slices(registrar: ants.AntsRegistrar, dice_gain: Callable) -> None:
    assert dice_gain(registrar) > 0.05
