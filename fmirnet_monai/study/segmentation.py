"""Segmentation by jointly trained networks measured: train each row, segment the volumes, one table and one figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from monai.transforms import LoadImage

from fmirnet_monai.data import load_volumes
from fmirnet_monai.report.figures import draw_segmentations
from fmirnet_monai.report.table import dice_heads, markdown_table, summarise
from fmirnet_monai.utils import package_version, read_json, write_text

from .training import TrainingJob, evaluate_networks, train_networks


@dataclass(frozen=True)
class SegmentationMethod:
    """One row of a comparison.

    Attributes:
        label: of the row.
        model: folder of its runs; rows of several tables may share one.
        datalist: of slices to learn from and volumes to segment, below the working folder.
        bundle: whose ``train.json`` trains it.
        variant: config in the bundle's ``configs/variants``, or None.
        overrides: config keys to values, laid over both.
        few: label of the row that has the same network trained on the annotated slices alone.
        ceiling: label of the row that has it trained on all labels.
        seeds: of its runs, one each; the row is their mean, since short runs differ by as much as methods do.
    """

    label: str
    model: str
    datalist: str
    bundle: str = "runet_chaos"
    variant: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    few: str | None = None
    ceiling: str | None = None
    seeds: Sequence[int] = (0,)

    def jobs(self, work_dir: Path, models_dir: Path, training: Mapping[str, Any]) -> list[TrainingJob]:
        """The row's runs, see :py:func:`compare_segmentation`."""
        settings = {**training, **self.overrides}
        return [
            TrainingJob(
                models_dir / self.model / f"seed_{seed}",
                str(work_dir / self.datalist),
                self.bundle,
                self.variant,
                {**settings, "seed": seed},
            )
            for seed in self.seeds
        ]


def compare_segmentation(
    methods: Sequence[SegmentationMethod],
    work_dir: Path,
    models_dir: Path,
    output_dir: Path,
    training: Mapping[str, Any],
    title: str = "",
    section: str = "test",
    labels: Mapping[str, str] | None = None,
    kept: Mapping[str, pd.DataFrame] | None = None,
) -> str:
    """Train and evaluate what has not been yet, and write ``comparison.md``, ``.csv``, ``.json`` and ``.png``.

    Args:
        methods: rows of the table.
        work_dir: folder that the datalists are in.
        models_dir: folder of the runs.
        output_dir: folder to write.
        training: config overrides that all rows share.
        title: of the table.
        section: of the volumes that are segmented.
        labels: number to name of the labels whose Dice gets a column of its own.
        kept: rows that need not be run, see :py:func:`kept_runs`; they are left out of the figure.

    Returns:
        the Markdown table: mean (standard deviation) over volumes.

    Raises:
        ChildProcessError: when a run fails.
    """
    kept = kept or {}
    jobs = {spec.label: spec.jobs(work_dir, models_dir, training) for spec in methods if spec.label not in kept}
    every_job = list({job.output_dir: job for own in jobs.values() for job in own}.values())
    train_networks(every_job)
    folders = evaluate_networks(every_job, section)
    runs = {
        spec.label: kept[spec.label]
        if spec.label in kept
        else pd.concat(
            {seed: _cases(folders[job.output_dir]) for seed, job in zip(spec.seeds, jobs[spec.label], strict=True)},
            names=["seed"],
        )
        for spec in methods
    }
    rows = {label: table.groupby("case", sort=False).mean() for label, table in runs.items()}
    subjects = next(iter(rows.values())).index
    heads = dice_heads(labels)
    lines = [f"# {title}", ""] if title else []
    lines += [
        f"Mean (standard deviation) over the volumes of n = {len(subjects)} subjects, section `{section}`: "
        f"{', '.join(map(str, subjects))}. HD, HD95 and ASSD in mm, on each volume's own grid. A row is the mean of "
        "its runs, which differ in the seed alone; below is each run's Dice.",
        "",
        markdown_table(rows, ["dice", *heads, "hd", "hd95", "assd"], heads),
    ]
    lines += ["| | Dice of each run |", "|---|---|"]
    for label, table in runs.items():
        lines.append(f"| {label} | {', '.join(f'{dice:.3f}' for dice in _run_means(table))} |")
    lines += [""]
    if closed := _gaps(methods, rows):
        lines += ["Of the distance in Dice between the few labels alone and all labels, joint training closes:", ""]
        lines += [*closed, ""]
    lines += ["Settings:", ""]
    for spec in methods:
        config = " + ".join([spec.bundle, *([spec.variant] if spec.variant else [])])
        seeds = ", ".join(map(str, spec.seeds))
        lines.append(f"- {spec.label}: `{config}` {dict(spec.overrides) or ''}, {spec.datalist}, seeds {seeds}")
    lines += [f"- all: {dict(training)}", ""]
    lines += ["Versions: " + ", ".join(f"{name} {package_version(name)}" for name in ("torch", "monai")) + ".", ""]
    text = "\n".join(lines)
    content = {
        "title": title,
        "rows": {
            spec.label: {
                **_settings(spec, training),
                "metrics": json.loads(summarise(rows[spec.label]).to_json()),
                "dice_of_runs": _run_means(runs[spec.label]),
            }
            for spec in methods
        },
    }
    write_text(output_dir / "comparison.json", json.dumps(content, indent=1) + "\n")
    write_text(output_dir / "comparison.csv", pd.concat(runs, names=["method"]).to_csv(float_format="%.6g"))
    write_text(output_dir / "comparison.md", text)
    pictures = []
    for volume in load_volumes(work_dir / methods[0].datalist, section)[:2]:
        for label, (job, *_) in jobs.items():
            files = {"image": volume["image"], "label": volume["label"]}
            files["found"] = str(folders[job.output_dir] / f"{volume['subject']}.nii.gz")
            arrays = {key: LoadImage(image_only=True)(file).numpy() for key, file in files.items()}
            pictures.append({"title": f"{label}, {volume['subject']}", **arrays})
    if pictures:
        draw_segmentations(pictures, output_dir / "comparison.png")
    return text


def kept_runs(
    results: Path,
    models: Sequence[str],
    methods: Sequence[SegmentationMethod],
    training: Mapping[str, Any],
    subjects: Sequence[str],
) -> dict[str, pd.DataFrame]:
    """What an earlier table of the same volumes measured of rows with the same settings, by row.

    Args:
        results: JSON file of that table, its CSV beside it.
        models: of the rows to keep.
        methods: rows of the table.
        training: config overrides that all rows share.
        subjects: of the volumes.

    Raises:
        FileNotFoundError: when there are no such results.
        ValueError: for a model that no row has, or when the results are of other volumes.
    """
    if unknown := [name for name in models if name not in {spec.model for spec in methods}]:
        raise ValueError(f"keep: {unknown[0]} is none of the models {', '.join(spec.model for spec in methods)}.")
    if not results.is_file():
        raise FileNotFoundError(f"keep: no such results: {results}; leave out --keep to run every row.")
    rows = read_json(results)["rows"]
    table = pd.read_csv(results.with_suffix(".csv"), dtype={"case": str}).set_index(["method", "seed", "case"])
    found = {}
    for spec in methods:
        settings = json.loads(json.dumps(_settings(spec, training)))
        if spec.model in models and spec.label in rows and settings.items() <= rows[spec.label].items():
            own = found[spec.label] = table.loc[[spec.label]].droplevel("method").dropna(axis=1, how="all")
            if set(own.index.get_level_values("case")) != set(subjects):
                raise ValueError(f"keep: {results} is of other volumes; leave out --keep.")
    return found


def _settings(spec: SegmentationMethod, training: Mapping[str, Any]) -> dict[str, Any]:
    return {**asdict(spec), "training": dict(training)}


def _cases(folder: Path) -> pd.DataFrame:
    """What an evaluation measured, one row a case."""
    return pd.read_csv(folder / "cases.csv", dtype={"case": str}).set_index("case").drop(columns=["row", "seconds"])


def _run_means(runs: pd.DataFrame) -> list[float]:
    """Mean Dice of each seed's run."""
    return [float(dice) for dice in runs["dice"].groupby("seed", sort=False).mean()]


def _gaps(methods: Sequence[SegmentationMethod], rows: Mapping[str, pd.DataFrame]) -> list[str]:
    """For each row that names both, the share of the distance in mean Dice that it closes."""
    lines = []
    for spec in methods:
        if spec.few and spec.ceiling:
            low, high, own = (float(rows[name]["dice"].mean()) for name in (spec.few, spec.ceiling, spec.label))
            share = f"{(own - low) / (high - low):.0%}" if high > low else "–"
            lines.append(f"- {spec.label}: {share} ({low:.4f} to {own:.4f}, all labels {high:.4f})")
    return lines
