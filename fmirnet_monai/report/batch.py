"""One HTML file about a batch of pairs: the worst first, with a link to each pair's own page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .page import before, number
from .render import write_page
from .table import column

REPORT = "report.html"
HEAD = 65536  # bytes of a pair's page that its small picture is looked for in
ICON = re.compile(rb'<link rel="icon" href="(data:image/webp;base64,[A-Za-z0-9+/=]+)">')
ORDER = ("error", "failed", "look", "good", "")  # of grades, worst first; the last one where nothing was measured
SHOWN = ("ncc", "dice", "guided_dice", "tre_mean", "guided_tre_mean", "folding", "seconds")
PAIRED = SHOWN[:-2]


def write_batch(rows: Iterable[Mapping[str, Any]], path: str | Path) -> Path:
    """Write a sortable table of pairs as one HTML file that needs nothing else, whole or not at all.

    A pair's small picture is that of its page, ``report.html`` in the folder named like the pair beside ``path``; one
    without a page has neither picture nor link.

    Args:
        rows: of each pair its name ``pair``, ``error`` (empty when it is done) and metrics by name; of a done one
            ``verdict``, ``verdict_reasons`` (a sequence) and ``verdict_risk``, where it was measured.
        path: HTML to write.

    Returns:
        ``path``.

    Raises:
        OSError: when it can't be written.
    """
    pairs = sorted((_pair(row, Path(path).parent) for row in rows), key=lambda pair: pair["rank"])
    metrics = [name for name in SHOWN if any(name in pair["values"] for pair in pairs)]
    counts = {grade: sum(pair["grade"] == grade for pair in pairs) for grade in ORDER}
    return write_page(
        path,
        "batch.html",
        ("common.css", "batch.css"),
        ("batch.js",),
        pairs=pairs,
        columns={name: f"{column(name)[0]}{', before → after' if name in PAIRED else ''}" for name in metrics},
        counts={grade: n for grade, n in counts.items() if n},
    )


def _pair(row: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    error = str(row.get("error") or "")
    grade = "error" if error else str(row.get("verdict") or "")
    grade = grade if grade in ORDER else ""
    risk = _number(row.get("verdict_risk"))
    page = folder / str(row["pair"]) / REPORT
    there = not error and page.is_file()
    values = {} if error else {name: _number(row[name]) for name in SHOWN if name in row}
    return {
        "name": str(row["pair"]),
        "grade": grade,
        "place": ORDER.index(grade),
        "rank": (ORDER.index(grade), -risk if math.isfinite(risk) else 0.0, str(row["pair"])),
        "risk": risk if math.isfinite(risk) else None,
        "reasons": [error] if error else list(row.get("verdict_reasons") or ()),
        "link": there,
        "thumbnail": _thumbnail(page) if there else "",
        "values": {name: value for name, value in values.items() if math.isfinite(value)},
        "texts": {name: _text(row, name) for name in values},
    }


def _text(row: Mapping[str, Any], name: str) -> str:
    after, first = _number(row[name]), _number(before(row, name))
    return f"{number(name, first)} → {number(name, after)}" if math.isfinite(first) else number(name, after)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _thumbnail(page: Path) -> str:
    with page.open("rb") as file:
        found = ICON.search(file.read(HEAD))
    return found[1].decode("ascii") if found else ""
