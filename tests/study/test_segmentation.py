"""Tables of segmentation networks: rows that earlier runs measured are taken over where they are the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from fmirnet_monai.study import segmentation
from fmirnet_monai.study.segmentation import SegmentationMethod, compare_segmentation, kept_runs
from fmirnet_monai.study.training import TrainingJob

SUBJECTS = ["01", "09"]
ROWS = [
    SegmentationMethod("few, one slice", "few", "datalist.json", seeds=(0, 1)),
    SegmentationMethod("joint", "joint", "datalist.json", variant="pretrained", few="few, one slice", ceiling="all"),
    SegmentationMethod("all", "all", "datalist.json"),
]
DICE = {"few": 0.7, "joint": 0.8, "all": 0.9}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models of the runs that are asked for, whose evaluation gives the Dice above plus a hundredth a seed."""
    asked: list[str] = []

    def evaluate(jobs: Sequence[TrainingJob], section: str) -> dict[Path, Path]:
        for job in jobs:
            folder = job.evaluation_dir(section)
            folder.mkdir(parents=True, exist_ok=True)
            dice = DICE[job.output_dir.parent.name] + 0.01 * int(job.output_dir.name[-1])
            case = {"row": 0, "case": SUBJECTS, "dice": [dice, dice - 0.1], "hd": 9, "hd95": 5, "assd": 1, "seconds": 1}
            pd.DataFrame(case).to_csv(folder / "cases.csv", index=False)
        return {job.output_dir: job.evaluation_dir(section) for job in jobs}

    monkeypatch.setattr(
        segmentation, "train_networks", lambda jobs: asked.extend(j.output_dir.parent.name for j in jobs)
    )
    monkeypatch.setattr(segmentation, "evaluate_networks", evaluate)
    monkeypatch.setattr(segmentation, "load_volumes", lambda *_: [])
    return asked


def table(
    rows: Sequence[SegmentationMethod], folder: Path, results: Path | None = None, keep: Sequence[str] = ()
) -> str:
    training = {"max_epochs": 2}
    kept = kept_runs(results / "comparison.json", keep, rows, training, SUBJECTS) if results else None
    return compare_segmentation(rows, folder, folder / "models", folder / "table", training, "Rows", kept=kept)


def test_kept_rows_give_the_same_table_and_are_not_run(tmp_path: Path, trained: list[str]) -> None:
    whole = table(ROWS, tmp_path / "one")
    assert trained == ["few", "few", "joint", "all"]
    assert "| few, one slice | 0.650, 0.660 |" in whole
    assert "joint: 49% (0.6550 to 0.7500, all labels 0.8500)" in whole
    trained.clear()
    again = table(ROWS, tmp_path / "other", tmp_path / "one" / "table", ["few", "all"])
    assert trained == ["joint"] and again == whole
    trained.clear()
    assert table(ROWS, tmp_path / "third", tmp_path / "other" / "table", ["few", "joint", "all"]) == whole
    assert not trained


def test_a_row_of_other_settings_is_run_again(tmp_path: Path, trained: list[str]) -> None:
    table(ROWS[:1], tmp_path / "one")
    changed = [SegmentationMethod("few, one slice", "few", "datalist.json", seeds=(0,)), *ROWS[1:]]
    trained.clear()
    table(changed, tmp_path / "other", tmp_path / "one" / "table", ["few"])
    assert trained == ["few", "joint", "all"]


def test_what_can_t_be_kept_is_said(tmp_path: Path, trained: list[str]) -> None:
    table(ROWS, tmp_path)
    results = tmp_path / "table" / "comparison.json"
    with pytest.raises(ValueError, match="keep: nothing is none of the models few, joint, all"):
        kept_runs(results, ["nothing"], ROWS, {"max_epochs": 2}, SUBJECTS)
    with pytest.raises(ValueError, match=r"keep: .* is of other volumes"):
        kept_runs(results, ["few"], ROWS, {"max_epochs": 2}, ["01", "14"])
    with pytest.raises(FileNotFoundError, match="keep: no such results"):
        kept_runs(tmp_path / "none.json", ["few"], ROWS, {"max_epochs": 2}, SUBJECTS)
