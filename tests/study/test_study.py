"""Whole studies on the small generated sample, from raw data to the table."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from fmirnet_monai.study import methods as methods_module
from fmirnet_monai.study import run_study
from fmirnet_monai.study.training import TrainingJob


@pytest.mark.slow
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

    # the same results, and another row, without the folder of the run
    (tmp_path / "study.json").write_text(json.dumps({**study, "methods": [*study["methods"], {"name": "affine"}]}))
    kept = run_study(tmp_path / "study.json", raw_phantom, tmp_path / "other", tmp_path / "results", ["fmirnet"])
    rows = [next(line for line in table.splitlines() if line.startswith("| ours | 4")) for table in (text, kept)]
    assert rows[0] == rows[1] and "| affine | 4 |" in kept
    assert "kept from an earlier run, with the similarity each had: ours." in kept
    cases = pd.read_csv(tmp_path / "results" / "study.csv")
    assert cases.groupby("method").size().to_dict() == {"ours": 4, "identity": 4, "affine": 4}
    with pytest.raises(ValueError, match="keep: vtn is none of the methods affine, fmirnet, identity"):
        run_study(tmp_path / "study.json", raw_phantom, tmp_path / "other", tmp_path / "results", ["vtn"])
    with pytest.raises(ValueError, match="keep: takes rows from --results_dir"):
        run_study(tmp_path / "study.json", raw_phantom, tmp_path / "other", keep=["fmirnet"])
    with pytest.raises(FileNotFoundError, match="keep: no such results"):
        run_study(tmp_path / "study.json", raw_phantom, tmp_path / "other", tmp_path / "none", ["fmirnet"])


def test_wrong_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: .*none\.json"):
        run_study(tmp_path / "none.json", tmp_path, tmp_path)
    (tmp_path / "data.json").write_text("{}")
    (tmp_path / "bad.json").write_text('{"data": "data.json", "titel": "x"}')
    with pytest.raises(ValueError, match=r"bad\.json is no study: .*titel"):
        run_study(tmp_path / "bad.json", tmp_path, tmp_path)
