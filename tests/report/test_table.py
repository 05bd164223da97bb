"""Summaries against the statistics module, and the form of the written tables."""

from __future__ import annotations

import csv
import json
import math
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fmirnet_monai.report import markdown_table, summarise, write_tables
from fmirnet_monai.report.table import COLUMNS


@pytest.fixture
def cases() -> pd.DataFrame:
    """Five cases; columns out of the order of the table; two cases without a distance, none with a surface."""
    rng = np.random.default_rng(0)
    hd = rng.uniform(3, 30, 5)
    hd[[1, 4]] = np.nan
    values = {"hd": hd, "dice": rng.uniform(0.5, 1, 5), "ssim": rng.uniform(0, 1, 5), "assd": np.full(5, np.nan)}
    return pd.DataFrame(values, index=[f"case {k}" for k in range(5)])


def rows_of(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_mean_sd_and_n_are_those_of_the_cases_with_a_value(cases: pd.DataFrame) -> None:
    summary = summarise(cases)
    assert list(summary.index) == ["mean", "sd", "n"]
    for name in ("hd", "dice", "ssim"):
        values = [v for v in cases[name] if not math.isnan(v)]
        assert summary[name]["n"] == len(values)
        assert summary[name]["mean"] == pytest.approx(statistics.mean(values), rel=1e-12)
        assert summary[name]["sd"] == pytest.approx(statistics.stdev(values), rel=1e-12)  # divides by n - 1
    assert summary["assd"]["n"] == 0 and math.isnan(summary["assd"]["mean"])


def test_columns_stand_in_the_order_of_the_table_with_units(cases: pd.DataFrame) -> None:
    head = rows_of(markdown_table({"after": cases}))[0]
    assert head == ["", "n", "SSIM", "Dice", "HD (mm)", "ASSD (mm)"]
    order = [head.index(title) for title, _ in COLUMNS.values() if title in head]
    assert order == sorted(order)


def test_metrics_may_be_chosen_and_ordered(cases: pd.DataFrame) -> None:
    table = markdown_table({"after": cases}, ["hd", "ssim", "ncc"])
    assert rows_of(table)[0] == ["", "n", "HD (mm)", "SSIM"]


def test_a_label_may_have_a_column_of_its_own(cases: pd.DataFrame) -> None:
    table = markdown_table({"after": cases.assign(dice_6=0.25, hd_1=2.0)}, ["dice_6", "hd_1"], {"hd_1": "HD, spleen"})
    assert rows_of(table) == [
        ["", "n", "Dice, label 6", "HD, spleen"],
        ["---"] * 4,
        ["after", "5", *["0.250 (0.000)", "2.00 (0.00)"]],
    ]


def test_cells_hold_mean_and_sd_and_say_when_cases_are_missing(cases: pd.DataFrame) -> None:
    head, _, row = rows_of(markdown_table({"after": cases}))
    cell = dict(zip(head, row, strict=True))
    assert cell["n"] == "5" and cell[""] == "after"
    assert cell["Dice"] == f"{statistics.mean(cases['dice']):.3f} ({statistics.stdev(cases['dice']):.3f})"
    hd = cases["hd"].dropna()
    assert cell["HD (mm)"] == f"{statistics.mean(hd):.2f} ({statistics.stdev(hd):.2f}) [n = 3]"
    assert cell["ASSD (mm)"] == "–"


def test_one_case_has_no_spread(cases: pd.DataFrame) -> None:
    row = rows_of(markdown_table({"after": cases[:1]}, ["dice"]))[-1]
    assert row == ["after", "1", f"{cases['dice'].iloc[0]:.3f}"]


def test_a_metric_of_one_row_only_is_a_dash_in_the_other(cases: pd.DataFrame) -> None:
    table = markdown_table({"before": cases.drop(columns="hd"), "after": cases})
    head, rule, before, after = rows_of(table)
    assert len({len(row) for row in (head, rule, before, after)}) == 1 and set(rule) == {"---"}
    column = head.index("HD (mm)")
    assert before[column] == "–" != after[column]
    assert table.endswith("|\n")


def test_written_files_agree_with_the_cases(tmp_path: Path, cases: pd.DataFrame) -> None:
    before = cases * 0.5
    text = write_tables(tmp_path / "new", {"before": before, "after": cases})
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"cases.csv", "summary.json", "summary.md"}
    assert (tmp_path / "new" / "summary.md").read_text() == text == markdown_table({"before": before, "after": cases})

    with (tmp_path / "new" / "cases.csv").open() as file:
        rows = {(row["row"], row["case"]): row for row in csv.DictReader(file)}
    assert len(rows) == 10
    for name, frame in (("before", before), ("after", cases)):
        for case, metric in ((case, metric) for case in frame.index for metric in frame):
            value = frame.loc[case, metric]
            cell = rows[name, case][metric]
            assert cell == "" if math.isnan(value) else float(cell) == pytest.approx(value, rel=1e-5)

    summary = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert summary["after"]["dice"]["mean"] == pytest.approx(statistics.mean(cases["dice"]), rel=1e-6)
    assert summary["after"]["hd"]["n"] == 3 and summary["after"]["assd"]["mean"] is None


def test_infinite_distances_and_percentages_are_shown_as_they_are() -> None:
    """A failed case must not vanish from the table."""
    cases = pd.DataFrame({"hd": [1.0, np.inf], "folding": [0.0, 12.5]})
    head, _, row = rows_of(markdown_table({"after": cases}))
    cell = dict(zip(head, row, strict=True))
    assert "inf" in cell["HD (mm)"] and cell["Folding (%)"].startswith("6.250")
