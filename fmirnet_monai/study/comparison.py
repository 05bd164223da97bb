"""Methods x cases: run every method on every pair, measure alike, and write one table."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from fmirnet_monai import __version__
from fmirnet_monai.output import require_folder
from fmirnet_monai.registration.intensity import seen_intensities
from fmirnet_monai.registration.measure import image_metrics
from fmirnet_monai.report.figures import draw_comparison
from fmirnet_monai.report.table import COLUMNS, column, dice_heads, markdown_table, summarise
from fmirnet_monai.resume import KEY
from fmirnet_monai.spatial import DisplacementField, Grid, resample
from fmirnet_monai.utils import package_version, read_json, write_text
from fmirnet_monai.workers import Workers

from .methods import Context, MethodSpec
from .running import (
    DEPTH,
    MEMORY,
    SUBJECTS,
    TIMING,
    Cases,
    field_file,
    measure_memory,
    run,
    subjects_of,
    warped_file,
)
from .statistics import interval, p_values

DECIDING = ("dice", "tre_mean")  # what gets an interval


def compare(
    cases: Cases,
    methods: Sequence[MethodSpec],
    output_dir: str | Path,
    context: Context | None = None,
    title: str = "",
    pictures: int = 3,
    memory: bool = False,
    labels: Mapping[str, str] | None = None,
    kept: Mapping[str, pd.DataFrame] | None = None,
    workers: Workers | None = None,
) -> str:
    """Run what has not been run yet and write ``comparison.md``, ``.csv``, ``.json`` and ``comparison.png``.

    Each method's cases go to ``cases/METHOD.csv`` as they are done; started again, the comparison goes on there.
    A case that fails leaves an empty row with the reason; started again, it is run again, as is one whose files or
    whose method's weights have changed. See :py:func:`failed_cases`.

    Args:
        cases: the pairs.
        methods: rows of the table; each other row's p-values are against the first.
        output_dir: folder to write.
        context: what all methods share.
        title: of the table.
        pictures: cases in the figure, spread evenly; 0 draws none.
        memory: measure each method's peak memory too, on the first case that did not fail.
        labels: number to name of the labels whose Dice gets a column of its own.
        kept: cases of rows that are not to be run, see :py:func:`kept_rows`.
        workers: who registers; by default this process, one case after the other.

    Returns:
        the Markdown table.

    Raises:
        ValueError: when the folder holds cases of other settings.
    """
    kept = kept or {}
    folder = Path(output_dir)
    require_folder(folder)
    context = context or Context()
    pairs = cases.load()
    shown = {pairs[i]["case"] for i in np.linspace(0, len(pairs) - 1, pictures + 2).round().astype(int)[1:-1]}
    ran = run([spec for spec in methods if spec.row not in kept], pairs, cases, context, folder, shown, workers)
    if memory:
        measure_memory([spec for spec in methods if spec.row in ran], ran, pairs, cases, context, folder)
    rows = {spec.row: kept[spec.row] if spec.row in kept else ran[spec.row] for spec in methods}
    _compare_alike({row: table for row, table in rows.items() if row not in kept}, pairs, cases, context, folder)
    text = _write(folder, title, cases, methods, rows, context, dice_heads(labels), tuple(kept), workers)
    if shown:
        _draw(folder, [pair for pair in pairs if pair["case"] in shown], cases, methods, context)
    return text


def kept_rows(
    results: str | Path, names: Sequence[str], cases: Cases, methods: Sequence[MethodSpec]
) -> dict[str, pd.DataFrame]:
    """Rows of an earlier comparison of the same cases that need not be run again, such as those of trained networks.

    Args:
        results: JSON file of that comparison, its CSV beside it.
        names: of the methods to keep.
        cases: the pairs.
        methods: rows of the table; those with other settings are left out, and those of which a case failed.

    Raises:
        FileNotFoundError: when there are no such results.
        ValueError: for a name that is none of the methods', or when the results are of other cases.
    """
    path = Path(results)
    if unknown := [name for name in names if name not in {spec.name for spec in methods}]:
        raise ValueError(f"keep: {unknown[0]} is none of the methods {', '.join(sorted({s.name for s in methods}))}.")
    if not path.is_file():
        raise FileNotFoundError(f"keep: no such results: {path}; leave out --keep to run every method.")
    content = read_json(path)
    table = pd.read_csv(path.with_suffix(".csv"), dtype={"case": str, "subject": str, "error": str})
    expected = {pair["case"]: SUBJECTS.join(subjects_of(pair)) for pair in cases.load()}
    found = {}
    for spec in methods:
        row = content["rows"].get(spec.row)
        if spec.name not in names or row is None or row["failed"] or row["method"] != spec.name:
            continue
        if row["settings"] == json.loads(json.dumps(dict(spec.settings))):
            own = table[table["method"] == spec.row].drop(columns="method").set_index("case").dropna(axis=1, how="all")
            own["error"] = ""
            if own["subject"].to_dict() != expected:
                raise ValueError(f"keep: {path} is of other cases than {cases.datalist}; leave out --keep.")
            found[spec.row] = own
    return found


def failed_cases(output_dir: str | Path) -> list[str]:
    """What failed in a comparison and why, a line for each method and case."""
    table = pd.read_csv(Path(output_dir) / "comparison.csv", dtype={"case": str, "error": str})
    failed = table[table["error"].notna()]
    return [f"{row['method']}, case {row['case']}: {row['error']}" for row in failed.to_dict("records")]


def _compare_alike(
    rows: Mapping[str, pd.DataFrame],
    pairs: Sequence[Mapping[str, Any]],
    cases: Cases,
    context: Context,
    folder: Path,
) -> None:
    """Measure the similarity of each case again, of all methods in the one region where every one of them sees both
    images; a method that pushed what fits badly out of view would gain by it otherwise.
    """
    for table in rows.values():  # a column that happens to hold whole numbers is read as such
        measured = [name for name in ("ssim", "ncc", "nmi", "inside") if name in table]
        table[measured] = table[measured].astype(float)
    for pair in tqdm(pairs, desc="measuring alike", unit="case"):
        done = [row for row, table in rows.items() if table.loc[pair["case"], "error"] == ""]
        if not done:
            continue
        loaded = cases.read(pair)
        counted = torch.ones(loaded.fixed.shape[1:], dtype=torch.bool)
        if loaded.fixed_mask is not None:
            counted = resample(loaded.fixed_mask, Grid.of(loaded.fixed), mode="nearest")[0][0] > 0
        fixed = seen_intensities(context.scale(), loaded.fixed, counted)
        images, regions = {}, []
        for row in done:
            with np.load(warped_file(folder, row, pair["case"])) as stored:
                images[row] = torch.from_numpy(stored["image"].astype(np.float32) / DEPTH)
                bits = np.unpackbits(stored["region"], count=fixed[0].numel())
                regions.append(torch.from_numpy(bits.astype(bool)).reshape(fixed.shape[1:]))
        common = torch.stack(regions).all(0)
        share = 100.0 * int(common.sum()) / max(1, int(counted.sum()))
        for row in done:
            values = {**image_metrics(images[row], fixed, common), "inside": share}
            rows[row].loc[pair["case"], list(values)] = list(values.values())


def _write(
    folder: Path,
    title: str,
    cases: Cases,
    methods: Sequence[MethodSpec],
    rows: Mapping[str, pd.DataFrame],
    context: Context,
    heads: Mapping[str, str],
    kept: Sequence[str],
    workers: Workers | None,
) -> str:
    rows = {name: table.drop(columns=KEY, errors="ignore") for name, table in rows.items()}
    measured = {name: table.drop(columns=["subject", "error"]) for name, table in rows.items()}
    columns = [name for metric in COLUMNS for name in ([metric, *heads] if metric == "dice" else [metric])]
    metrics = [m for m in columns if any(m in table for table in measured.values())]
    failed = {name: int((table["error"] != "").sum()) for name, table in rows.items()}
    subjects = {name for table in rows.values() for both in table["subject"] for name in both.split(SUBJECTS)}
    reference = next(iter(rows))
    tested = [m for m in metrics if m not in (TIMING, MEMORY, "inside")]
    tests = {metric: p_values(measured, metric) for metric in tested}
    environment = {
        name: package_version(name)
        for name in ("torch", "monai", "itk", "itk-elastix", "antspyx", "picsl-greedy", "convexadam")
    }
    environment |= {"fmirnet_monai": __version__, "Python": platform.python_version(), "machine": platform.machine()}
    size = "each image's own grid" if cases.spatial_size is None else f"{cases.spatial_size} voxels on the longest side"
    n = len(next(iter(rows.values())))
    lines = [
        *([f"# {title}", ""] if title else []),
        f"Mean (standard deviation over pairs); n = {n} pairs of {len(subjects)} subjects, section `{cases.section}`, "
        f"{size}; {_where(workers)}. "
        + ("; ".join(f"{name}: {count} of {n} failed" for name, count in failed.items() if count) or "No case failed")
        + ".",
        "",
        markdown_table(measured, metrics, heads),
        f"p of the paired Wilcoxon signed-rank test against {reference} (pairs of one subject are not independent):",
        "",
        "| | " + " | ".join(heads.get(m, column(m)[0]) for m in tested) + " |",
        "|---" * (len(tested) + 1) + "|",
    ]
    lines += [
        f"| {name} | " + " | ".join(_p(tests[metric][name]) for metric in tested) + " |"
        for name in rows
        if name != reference
    ]
    deciding = [m for m in DECIDING if m in metrics]
    ranges = {
        name: {m: interval(table[m], table["subject"].str.split(SUBJECTS).str[-1]) for m in deciding if m in table}
        for name, table in rows.items()
    }
    if deciding:
        lines += [
            "",
            "95 % bootstrap interval of the mean over subjects (of pairs of two, over those of the fixed image):",
            "",
            "| | " + " | ".join(column(m)[0] for m in deciding) + " |",
            "|---" * (len(deciding) + 1) + "|",
        ]
        lines += [
            f"| {name} | " + " | ".join(_range(*found.get(m, (math.nan, math.nan))) for m in deciding) + " |"
            for name, found in ranges.items()
        ]
    lines += ["", "Settings:", ""]
    lines += [f"- {spec.row}: `{spec.name}` {_shown(spec.settings)}" for spec in methods]
    lines += [f"- all: {_shown({k: v for k, v in context.settings().items() if k != 'models_dir'})}"]
    if kept:
        lines += ["", f"Not run again but kept from an earlier run, with the similarity each had: {'; '.join(kept)}."]
    lines += ["", "Versions: " + ", ".join(f"{name} {number}" for name, number in environment.items()) + ".", ""]
    text = "\n".join(lines)
    content = {
        "title": title,
        "n": n,
        "subjects": len(subjects),
        "cases": {**asdict(cases), "datalist": Path(cases.datalist).name},
        "environment": environment,
        "rows": {
            spec.row: {
                "method": spec.name,
                "settings": dict(spec.settings),
                "failed": failed[spec.row],
                "metrics": json.loads(summarise(measured[spec.row]).to_json()),
                "interval": {m: list(ends) for m, ends in ranges[spec.row].items() if math.isfinite(ends[0])},
                "p": {m: tests[m].get(spec.row) for m in tested if math.isfinite(tests[m].get(spec.row, math.nan))},
            }
            for spec in methods
        },
    }
    write_text(folder / "comparison.json", json.dumps(content, indent=1) + "\n")
    write_text(folder / "comparison.csv", pd.concat(rows, names=["method", "case"]).to_csv(float_format="%.6g"))
    write_text(folder / "comparison.md", text)
    return text


def _where(workers: Workers | None) -> str:
    """What the seconds were measured on."""
    if workers is not None and workers.scheduler is not None:
        return "on a cluster, so that seconds are not to be compared"
    cores = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    return f"{cores}, which {workers.count} cases at a time shared" if workers else cores


def _shown(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items()) or "as it comes"


def _range(low: float, high: float) -> str:
    return "–" if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def _p(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _draw(
    folder: Path, pairs: Sequence[Mapping[str, Any]], cases: Cases, methods: Sequence[MethodSpec], context: Context
) -> None:
    content = []
    for pair in pairs:
        loaded = cases.read(pair)
        fields = {}
        for spec in methods:
            file = field_file(folder, spec.row, pair["case"])
            if file.is_file():
                ddf = torch.load(file, weights_only=True).float()
                fields[spec.row] = DisplacementField(ddf, Grid.of(loaded.fixed))
        content.append((f"{' to '.join(subjects_of(pair))} {pair['case']}", loaded, context.scale(), fields))
    draw_comparison(content, folder / "comparison.png")
