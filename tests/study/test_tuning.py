"""Tuning: the best trial that does not fold wins, and compare takes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fmirnet_monai.study import Cases, Context, MethodSpec, parse_methods, tune, tuning


@pytest.mark.slow
def test_tuning_takes_the_best_trial_and_compare_takes_its_settings(
    cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = [{"iterations": [i, i, i], "field_sigma": sigma} for i in (1, 20) for sigma in (1.0, 9.0)]
    monkeypatch.setattr(MethodSpec, "grid", lambda spec: grid if spec.name == "demons" else [])
    validation = replace(cases, section="validation", count=3)
    output = tmp_path / "tuned.json"
    found = tune(validation, parse_methods(["identity", "demons"]), output)
    assert set(found) == {"demons"} and len(found["demons"]["trials"]) == 4
    best = max(found["demons"]["trials"], key=lambda trial: trial["dice"])
    assert found["demons"]["settings"] == best["settings"] == {"iterations": [20, 20, 20], "field_sigma": 1.0}
    (spec,) = parse_methods(["demons"], output)
    assert spec.settings == best["settings"]
    assert spec.build(Context(), 2).iterations == (20, 20, 20)  # type: ignore[attr-defined]
    monkeypatch.setattr(tuning, "_try", lambda *_: pytest.fail("tried again"))
    assert tune(validation, parse_methods(["demons"]), output) == found
    with pytest.raises(ValueError, match="holds a search on other pairs"):
        tune(cases, parse_methods(["demons"]), output)


def test_settings_that_fold_lose() -> None:
    trials = [
        {"settings": {"a": 1}, "dice": 0.9, "digital_folding": 2.0, "failed": 0},
        {"settings": {"a": 2}, "dice": 0.8, "digital_folding": 0.1, "failed": 0},
        {"settings": {"a": 3}, "dice": 0.95, "digital_folding": 0.0, "failed": 1},
    ]
    assert tuning._winner(trials)["settings"] == {"a": 2}
