"""Tables of metric values: mean (standard deviation) over cases, as text, Markdown, CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fmirnet_monai.utils import GUIDED, write_text

# metric: (column head, decimals)
COLUMNS = {
    "ssim": ("SSIM", 3),
    "ncc": ("NCC", 3),
    "nmi": ("NMI", 3),
    "inside": ("Compared (%)", 1),
    "dice": ("Dice", 3),
    "hd": ("HD (mm)", 2),
    "hd95": ("HD95 (mm)", 2),
    "assd": ("ASSD (mm)", 2),
    "tre_mean": ("TRE, mean (mm)", 2),
    "tre_median": ("TRE, median (mm)", 2),
    "tre_95": ("TRE, 95th percentile (mm)", 2),
    "folding": ("Folding (%)", 3),
    "digital_folding": ("Digital folding (%)", 3),
    "sd_log_jacobian": ("SDlogJ", 3),
    "seconds": ("Seconds", 4),
    "memory": ("Peak memory (MiB)", 1),
}
COLUMNS |= {
    f"{GUIDED}{name}": (f"{COLUMNS[name][0]}, used as guide", COLUMNS[name][1])
    for name in ("dice", "hd95", "assd", "tre_mean", "tre_median", "tre_95")
}


def column(metric: str) -> tuple[str, int]:
    """Head and decimals of a metric's column; ``dice_6`` is that of label 6 alone, any other name stands for itself."""
    base, _, label = metric.rpartition("_")
    if metric not in COLUMNS and base in COLUMNS:
        head, digits = COLUMNS[base]
        return f"{head}, label {label}", digits
    return COLUMNS.get(metric, (metric, 3))


def dice_heads(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Heads of the columns of single labels' Dice, by metric.

    Args:
        labels: number to name.
    """
    return {f"dice_{number}": f"Dice, {name}" for number, name in (labels or {}).items()}


def summarise(cases: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation (n - 1) and number of cases that have a value, per metric.

    Args:
        cases: one row a case, one column a metric, NaN where a case has no value.

    Returns:
        rows ``mean``, ``sd``, ``n``.
    """
    return pd.DataFrame({"mean": cases.mean(), "sd": cases.std(ddof=1), "n": cases.count()}).T


def markdown_table(
    rows: Mapping[str, pd.DataFrame], metrics: Sequence[str] | None = None, heads: Mapping[str, str] | None = None
) -> str:
    """Markdown table of ``mean (sd)``, one row per entry of ``rows``.

    Args:
        rows: row name to cases, see :py:func:`summarise`.
        metrics: columns, in order; by default those of :py:data:`COLUMNS` that any row has.
        heads: of columns that are not to have that of :py:func:`column`.

    Returns:
        the table, ending in a newline; a cell whose n differs from the number of cases says so.
    """
    chosen = [m for m in (metrics or COLUMNS) if any(m in cases for cases in rows.values())]
    titles = [(heads or {}).get(m, column(m)[0]) for m in chosen]
    lines = ["| | n | " + " | ".join(titles) + " |", "|---" * (len(chosen) + 2) + "|"]
    for name, cases in rows.items():
        summary = summarise(cases)
        cells = [_cell(summary, m, len(cases)) for m in chosen]
        lines.append(f"| {name} | {len(cases)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def before_and_after(cases: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows of a table from cases whose columns ``before_…`` are those of the unregistered pair."""
    before = cases.filter(regex="^before_").rename(columns=lambda name: name.removeprefix("before_"))
    return {"before": before, "after": cases.drop(columns=cases.filter(regex="^before_").columns)}


def _cell(summary: pd.DataFrame, metric: str, total: int) -> str:
    if metric not in summary or not summary[metric]["n"]:
        return "–"
    mean, sd, n = summary[metric]
    digits = column(metric)[1]
    spread = "" if np.isnan(sd) else f" ({sd:.{digits}f})"
    return f"{mean:.{digits}f}{spread}" + (f" [n = {n:.0f}]" if n < total else "")


def write_tables(folder: Path, rows: Mapping[str, pd.DataFrame]) -> str:
    """Write ``cases.csv`` (every case), ``summary.json`` and ``summary.md``; the Markdown is returned as well."""
    text = markdown_table(rows)
    write_text(folder / "cases.csv", pd.concat(rows, names=["row", "case"]).to_csv(float_format="%.6g"))
    summary = {name: json.loads(summarise(cases).to_json()) for name, cases in rows.items()}
    write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    write_text(folder / "summary.md", text)
    return text
