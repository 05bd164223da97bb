"""Whole studies on the small generated sample, from raw data to the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fmirnet_monai.study import methods as methods_module
from fmirnet_monai.study import run_study
from fmirnet_monai.study.training import TrainingJob


def test_study_from_raw_data_to_table(raw_phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way with two tiny trainings; a second run trains nothing and gives the same table."""
    monkeypatch.setattr(methods_module, "LOSS_GRID", {"loss#weights#smoothness": [0.01]})
    data = {
        "prepare": [
            ["prepare", "chaos", "--source_dir", "{source}", "--output_dir", "{work}/d", "--r", "0.3"]
            + ["--fractions", "0.5,0.25,0.25"]
        ],
        "datalist": "d/datalist.json",
        "cases": {"spatial_size": 48, "count": 4},
        "context": {"overrides": {"network_def#channels": [2, 4]}},
        "training": {"max_epochs": 1, "spatial_size": [48, 48]},
    }
    study = {
        "title": "Tiny",
        "data": "data.json",
        "tuned": "tuned.json",
        "tuning": {"methods": ["fmirnet"], "count": 2},
        "methods": [{"name": "fmirnet", "label": "ours"}, {"name": "identity"}],
    }
    (tmp_path / "data.json").write_text(json.dumps(data))
    (tmp_path / "study.json").write_text(json.dumps(study))
    arguments = (tmp_path / "study.json", raw_phantom, tmp_path / "work", tmp_path / "results")
    text = run_study(*arguments)
    assert "| ours | 4 |" in text and "Peak memory (MiB)" in text and "loss#weights#smoothness" in text
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == [
        "study.csv",
        "study.json",
        "study.md",
        "tuned_tuning.md",
    ]
    weights = torch.load(tmp_path / "work" / "models" / "fmirnet_0.01" / "model.pt", weights_only=True)
    assert min(tensor.shape[0] for tensor in weights.values()) == 2
    monkeypatch.setattr(TrainingJob, "command", lambda *_: pytest.fail("trained again"))
    assert run_study(*arguments) == text


def test_wrong_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: .*none\.json"):
        run_study(tmp_path / "none.json", tmp_path, tmp_path)
    (tmp_path / "data.json").write_text("{}")
    (tmp_path / "bad.json").write_text('{"data": "data.json", "titel": "x"}')
    with pytest.raises(ValueError, match=r"bad\.json is no study: .*titel"):
        run_study(tmp_path / "bad.json", tmp_path, tmp_path)
