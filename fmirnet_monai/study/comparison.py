"""Methods x cases: run every method on every pair, measure alike, and write one table."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from fmirnet_monai import __version__
from fmirnet_monai.data import PATH_KEYS, LoadedPair, load_pairs, read_pair
from fmirnet_monai.memory import peak_memory
from fmirnet_monai.registration import PairRegistrar, Registration
from fmirnet_monai.registration.intensity import seen_intensities
from fmirnet_monai.registration.measure import image_metrics
from fmirnet_monai.report.figures import draw_comparison
from fmirnet_monai.report.table import COLUMNS, column, dice_heads, markdown_table, summarise
from fmirnet_monai.spatial import DisplacementField, Grid, resample, resize
from fmirnet_monai.spatial.image import Image, on_grid, plain
from fmirnet_monai.utils import package_version, read_json, replacing, save_checkpoint, write_text

from .methods import Context, MethodSpec
from .statistics import interval, p_values

logger = logging.getLogger(__name__)
SUBJECTS = " & "  # between the two of a pair
FORM = 2  # of what is stored of a case
DEPTH = 65535  # grey levels of a stored image
DECIDING = ("dice", "tre_mean")  # what gets an interval
TIMING, MEMORY = "seconds", "memory"  # the columns that differ from run to run


@dataclass(frozen=True)
class Cases:
    """The pairs of a comparison and how they are prepared.

    Attributes:
        datalist: JSON datalist of pairs.
        section: of the datalist.
        spatial_size: longest side in voxels that both images are resampled to, with square or cubic voxels; None
            registers and measures on the images' own grids.
        count: take only so many pairs, spread evenly over the section; None takes all.
    """

    datalist: str
    section: str = "test"
    spatial_size: int | None = None
    count: int | None = None

    def load(self) -> list[dict[str, Any]]:
        """The pairs as in the datalist, with a ``case`` that names each."""
        pairs = load_pairs(self.datalist, self.section)
        chosen = range(len(pairs))
        if self.count is not None and self.count < len(pairs):
            chosen = np.linspace(0, len(pairs) - 1, self.count).round().astype(int).tolist()
        return [{**pairs[i], "case": f"{i:04d}"} for i in chosen]

    def read(self, pair: Mapping[str, Any]) -> LoadedPair:
        """Images, labels and points of a pair, resampled where asked."""
        loaded = read_pair({key: value for key, value in pair.items() if key in PATH_KEYS})
        return loaded if self.spatial_size is None else resample_pair(loaded, self.spatial_size)


def resample_pair(pair: LoadedPair, size: int) -> LoadedPair:
    """Both images, each over its own extent, with voxels of equal sides and ``size`` of them along the longest axis.

    Images are smoothed where they shrink, labels and masks take the nearest voxel; axes of one voxel stay.
    """
    parts: dict[str, Any] = {"moving_points": pair.moving_points, "fixed_points": pair.fixed_points}
    for side in ("moving", "fixed"):
        image = getattr(pair, side)
        grid = Grid.of(image).with_longest_side(size)
        parts[side] = Image(resize(plain(image)[None], grid.shape)[0], grid.affine, image.meta)
        parts[f"{side}_channels"] = getattr(pair, f"{side}_channels")
        for key in (f"{side}_label", f"{side}_mask"):
            if (label := getattr(pair, key)) is not None:
                parts[key] = on_grid(resample(label, grid, mode="nearest")[0], grid)
    return LoadedPair(**parts)


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
) -> str:
    """Run what has not been run yet and write ``comparison.md``, ``.csv``, ``.json`` and ``comparison.png``.

    Each method's cases go to ``cases/METHOD.csv`` as they are done; started again, the comparison goes on there.
    A case that fails leaves an empty row with the reason; started again, it is run again. See :py:func:`failed_cases`.

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

    Returns:
        the Markdown table.

    Raises:
        ValueError: when the folder holds cases of other settings.
    """
    kept = kept or {}
    folder = Path(output_dir)
    context = context or Context()
    pairs = cases.load()
    shown = {pairs[i]["case"] for i in np.linspace(0, len(pairs) - 1, pictures + 2).round().astype(int)[1:-1]}
    rows = {}
    with tqdm(total=len(pairs) * len(methods), unit="case") as progress:
        for spec in methods:
            progress.set_description(spec.row)
            if spec.row in kept:
                rows[spec.row] = kept[spec.row]
                progress.update(len(pairs))
            else:
                rows[spec.row] = _run(spec, pairs, cases, context, folder, shown, progress, memory)
    _compare_alike({row: table for row, table in rows.items() if row not in kept}, pairs, cases, context, folder)
    text = _write(folder, title, cases, methods, rows, context, dice_heads(labels), tuple(kept))
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
    expected = {pair["case"]: SUBJECTS.join(_subjects(pair)) for pair in cases.load()}
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


def run_case(registrar: PairRegistrar, loaded: LoadedPair) -> tuple[dict[str, float], Registration]:
    """The figures of one pair, timed, and the registration."""
    result = registrar.register(**loaded.arguments())
    seconds = sum(result.timings.values())  # of the map alone, nothing else has been asked for
    return {**result.after, TIMING: seconds}, result


def _run(
    spec: MethodSpec,
    pairs: Sequence[Mapping[str, Any]],
    cases: Cases,
    context: Context,
    folder: Path,
    shown: set[str],
    progress: tqdm,
    memory: bool,
) -> pd.DataFrame:
    """The method's cases, one row each, from its CSV as far as they are there."""
    path = folder / "cases" / f"{_slug(spec.row)}.csv"
    setup = {"form": FORM, "method": asdict(spec), "cases": asdict(cases), "context": context.settings()}
    table = _read_cases(path, setup)
    if len(table):
        table = table[table["error"] == ""]  # what failed may have been mended since
    todo = [pair for pair in pairs if pair["case"] not in table.index]
    progress.update(len(pairs) - len(todo))
    registrar = None
    for pair in todo:
        row: dict[str, Any] = {"subject": SUBJECTS.join(_subjects(pair)), "error": ""}
        loaded = None
        try:
            loaded = cases.read(pair)
            if registrar is None:
                registrar = spec.build(context, loaded.fixed.dim() - 1)
                registrar.estimate(loaded.moving, loaded.fixed)  # the first pass warms up
            values, result = run_case(registrar, loaded)
            row |= values
            _keep_warped(_warped_file(folder, spec.row, pair["case"]), *result.seen)
            if pair["case"] in shown:
                save_checkpoint(
                    folder / "fields" / f"{_slug(spec.row)}_{pair['case']}.pt", result.field.ddf.half().cpu()
                )
        except (ValueError, RuntimeError, OSError) as error:
            if loaded is not None and registrar is None:
                raise  # nothing can be run with these settings
            row["error"] = " ".join(str(error).split())
            logger.warning("%s, case %s failed: %s", spec.row, pair["case"], row["error"])
        table = pd.concat([table, pd.DataFrame([row], index=pd.Index([pair["case"]], name="case"))])
        write_text(path, table.to_csv(float_format="%.6g"))
        progress.update()
    if todo:
        table = table.reindex([pair["case"] for pair in pairs])  # where one is run again, it stands last
        write_text(path, table.to_csv(float_format="%.6g"))
    done = [pair for pair in pairs if table.loc[pair["case"], "error"] == ""]
    if memory and done and (MEMORY not in table or table[MEMORY].isna().all()):
        table.loc[done[0]["case"], MEMORY] = peak_memory(partial(_first_case, spec, done[0], cases, context))
        write_text(path, table.to_csv(float_format="%.6g"))
    return _read_cases(path, setup)  # with its digits, or a second run's p-values would be others


def _warped_file(folder: Path, row: str, case: str) -> Path:
    return folder / "warped" / f"{_slug(row)}_{case}.npz"


def _keep_warped(path: Path, image: Tensor, region: Tensor) -> None:
    """Store a warped image in [0, 1] and where it counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = (image.clamp(0, 1) * DEPTH).round().cpu().numpy().astype(np.uint16)
    with replacing(path) as partial:
        np.savez_compressed(partial, image=values, region=np.packbits(region.cpu().numpy()))


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
            with np.load(_warped_file(folder, row, pair["case"])) as stored:
                images[row] = torch.from_numpy(stored["image"].astype(np.float32) / DEPTH)
                bits = np.unpackbits(stored["region"], count=fixed[0].numel())
                regions.append(torch.from_numpy(bits.astype(bool)).reshape(fixed.shape[1:]))
        common = torch.stack(regions).all(0)
        share = 100.0 * int(common.sum()) / max(1, int(counted.sum()))
        for row in done:
            values = {**image_metrics(images[row], fixed, common), "inside": share}
            rows[row].loc[pair["case"], list(values)] = list(values.values())


def _first_case(spec: MethodSpec, pair: Mapping[str, Any], cases: Cases, context: Context) -> Callable[[], object]:
    """One registration, all but it done: modules that load at the first call are there after a pair of tiny images."""
    loaded = cases.read(pair)
    registrar = spec.build(context, loaded.fixed.dim() - 1)
    tiny = resample_pair(loaded, 32)
    registrar.estimate(tiny.moving, tiny.fixed)
    return partial(registrar.estimate, loaded.moving, loaded.fixed)


def _read_cases(path: Path, setup: Mapping[str, Any]) -> pd.DataFrame:
    """Cases that are done; the settings stand beside them, so that no others are mixed in."""
    beside = path.with_suffix(".json")
    text = json.dumps(setup, indent=1, default=str) + "\n"
    if not path.is_file():
        write_text(beside, text)
        return pd.DataFrame(index=pd.Index([], name="case"))
    if not beside.is_file() or beside.read_text() != text:
        raise ValueError(
            f"{path}: holds cases of other settings, see {beside.name} beside it; give another --output_dir, or "
            "remove both files to run the method again."
        )
    table = pd.read_csv(path, dtype={"case": str, "subject": str, "error": str}).set_index("case")
    return table.fillna({"error": "", "subject": ""})


def _write(
    folder: Path,
    title: str,
    cases: Cases,
    methods: Sequence[MethodSpec],
    rows: Mapping[str, pd.DataFrame],
    context: Context,
    heads: Mapping[str, str],
    kept: Sequence[str],
) -> str:
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
        f"{size}; {torch.get_num_threads()} of {os.cpu_count()} cores. "
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


def _subjects(pair: Mapping[str, Any]) -> list[str]:
    """Names of the one subject of a pair, or of both."""
    names = pair.get("subject", "")
    return [str(name) for name in names] if isinstance(names, list) else [str(names)]


def _shown(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items()) or "as it comes"


def _range(low: float, high: float) -> str:
    return "–" if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def _p(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.lower())


def _draw(
    folder: Path, pairs: Sequence[Mapping[str, Any]], cases: Cases, methods: Sequence[MethodSpec], context: Context
) -> None:
    content = []
    for pair in pairs:
        loaded = cases.read(pair)
        fields = {}
        for spec in methods:
            file = folder / "fields" / f"{_slug(spec.row)}_{pair['case']}.pt"
            if file.is_file():
                ddf = torch.load(file, weights_only=True).float()
                fields[spec.row] = DisplacementField(ddf, Grid.of(loaded.fixed))
        content.append((f"{' to '.join(_subjects(pair))} {pair['case']}", loaded, context.scale(), fields))
    draw_comparison(content, folder / "comparison.png")
