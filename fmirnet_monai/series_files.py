"""A series of images in, a registered series out: what the command ``register_series`` does."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmirnet_monai import data
from fmirnet_monai.output import require_folder, result_folder
from fmirnet_monai.registration import Method, Registrar, Registration, SeriesRegistration, register_series
from fmirnet_monai.registration.result import map_points, timed
from fmirnet_monai.registration.series import MEAN, most_typical, placed
from fmirnet_monai.spatial import Affine, DisplacementField, Grid, resample
from fmirnet_monai.spatial.image import plain
from fmirnet_monai.spatial.itk import write_transform
from fmirnet_monai.utils import digest, save_checkpoint, versions, write_text
from fmirnet_monai.workflow import or_none, write_metrics

KEPT = re.compile(r"\.series_[0-9a-f]{12}")
ROW = ("frame", "image", "verdict", "verdict_reasons")  # what is no metric in a row of the table


@dataclass(frozen=True)
class SeriesOptions:
    """What is done with a series; see the arguments of the command ``register_series``."""

    reference: str = "first"
    rounds: int = 3
    neighbours: bool = True
    label: str | None = None
    points: str | None = None
    label_frame: int | None = None
    fields: bool = False
    metrics: bool = True


@dataclass(frozen=True, eq=False)
class _Drawn:
    """What was drawn on one frame."""

    frame: int | None
    label: Tensor | None = None
    points: data.Points | None = None


def register_series_files(
    images: str, output_dir: str | Path, method: Method, options: SeriesOptions | None = None
) -> tuple[dict[str, float], Counter[str]]:
    """Register a series and write everything about it, all or nothing.

    While it runs, the maps that are found lie in a hidden folder of ``output_dir``: a run that was killed goes on there
    when it is started again with the same files and options.

    Args:
        images: see :py:func:`fmirnet_monai.data.read_series`.
        output_dir: folder to write.
        method: how each frame is registered.
        options: what else.

    Returns:
        the metrics of the whole series, see ``docs/background/metrics.md``, and how many frames have each verdict.

    Raises:
        FileNotFoundError: for a file that does not exist.
        ValueError: for one that can't be used, or an option that does not fit the series.
    """
    options = options or SeriesOptions()
    require_folder(output_dir)
    series = data.read_series(images)
    reference = _reference(options.reference, len(series.frames))
    drawn = _read_drawn(options, series, None if reference == MEAN else int(reference))
    given = {"images": images, "label": options.label, "points": options.points}
    inputs = [*series.files, *(file for file in (options.label, options.points) if file)]
    with result_folder(output_dir, inputs) as folder:
        timings: dict[str, float] = {}
        registrar = _registrar(method, series, reference)
        registrar.examined = options.metrics
        settings = {
            "method": registrar.name,
            "affine": registrar.affine,
            **registrar.describe(series.grid),
            **registrar.settings,
            "reference": reference,
            "neighbours": options.neighbours,
            **({"rounds": options.rounds} if reference == MEAN else {}),
        }
        hashes = {str(file): digest(file) for file in inputs}
        with _kept(output_dir, [hashes, settings, versions()], series.grid) as kept:
            with timed(timings, "registration"):
                found = register_series(
                    *(series.frames, registrar, reference, options.rounds, options.neighbours, kept),
                    progress=method.progress,
                )
            table, warped, inside = _write_frames(found, series, registrar, folder, options)
            _write_drawn(found, drawn, series, folder)
            figures = summary(table, found) | _steadiness(series, warped, inside) if options.metrics else {}
            content = {
                "series": {name: text for name, text in given.items() if text},
                "metrics": {name: or_none(value) for name, value in figures.items()},
                "frames": [row | {name: or_none(row[name]) for name in row if name not in ROW} for row in table],
                "seconds": timings,
                "settings": {**settings, **({} if drawn.frame is None else {"label_frame": drawn.frame})},
            }
            write_metrics(folder, content, hashes)
    return figures, Counter(row["verdict"] for row in table if "verdict" in row)


def summary(table: list[dict[str, Any]], found: SeriesRegistration) -> dict[str, float]:
    """The metrics of a series: means over the frames but the reference, and what tells of its course over time."""
    rows = [row for row in table if row["frame"] != found.index]
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in ROW]
    means = {name: float(np.mean([row.get(name, math.nan) for row in rows])) for name in names}
    spread = {f"{name}_sd": float(np.std([row[name] for row in rows])) for name in ("before_ncc", "ncc")}
    return {**means, **spread, **found.jitter()}


def _reference(text: str, count: int) -> int | str:
    if text in ("first", MEAN):
        return 0 if text == "first" else MEAN
    if not (text.isascii() and text.isdigit()) or int(text) >= count:
        raise ValueError(f"reference must be first, mean or a frame from 0 to {count - 1}, got {text!r}.")
    return int(text)


def _read_drawn(options: SeriesOptions, series: data.Series, reference: int | None) -> _Drawn:
    """The label and the points of one frame, once it is known that they lie on it."""
    frame = reference if options.label_frame is None else options.label_frame
    if not (options.label or options.points):
        if options.label_frame is not None:
            raise ValueError("label_frame: there is nothing drawn; give --label or --points.")
        return _Drawn(None)
    if frame is None:
        raise ValueError("label_frame: a mean is no frame; say on which one the label or the points were drawn.")
    if not 0 <= frame < len(series.frames):
        raise ValueError(f"label_frame must be a frame from 0 to {len(series.frames) - 1}, got {frame}.")
    label = points = None
    if options.label:
        label = data.read_label(options.label, track_meta=False)
        if label.dim() - 1 != series.grid.dims:
            raise ValueError(f"{options.label}: has {label.dim() - 1} axes, a frame {series.grid.dims}.")
        data.check_label_inside(label, series.grid, options.label)
    if options.points:
        points = data.read_points(options.points, series.grid.dims)
        data.check_points_inside(points, series.grid, options.points)
    return _Drawn(frame, label, points)


def _registrar(method: Method, series: data.Series, reference: int | str) -> Registrar:
    """One for all frames, chosen by the reference and the frame next to it."""
    index = most_typical(series.frames) if reference == MEAN else int(reference)
    beside = index - 1 if index else 1
    quiet = replace(method, progress=False, checks=False)
    return quiet.registrar(series.frames[beside], series.frames[index])


def _write_frames(
    found: SeriesRegistration, series: data.Series, registrar: Registrar, folder: Path, options: SeriesOptions
) -> tuple[list[dict[str, Any]], NDArray[np.float32], NDArray[np.uint8]]:
    """Write images and maps, frame by frame; gives the metrics of each, the warped frames and where they are seen."""
    grid = Grid.of(found.reference)
    count = len(series.frames)
    warped = np.empty((*grid.shape, count), dtype=np.float32, order="F")
    inside = np.empty((*grid.shape, count), dtype=np.uint8, order="F")
    table = []
    for number, (frame, through) in enumerate(zip(series.frames, found.maps, strict=True)):
        result = _frame(frame, found.reference, through, registrar)
        warped[..., number], inside[..., number] = result.warped[0].cpu(), result.inside.cpu()
        write_transform(through, folder / f"frame_{number:03d}_transform.h5")
        if options.fields:
            write_transform(through, folder / f"frame_{number:03d}_displacement.nii.gz")
        if options.metrics:
            row: dict[str, Any] = {"frame": number, "image": series.names[number], **result.metrics}
            if number != found.index:
                judged = result.verdict
                row |= {"verdict": judged.grade, "verdict_reasons": " ".join(judged.reasons)}
            table.append(row)
    data.write_series(warped, folder / "warped.nii.gz", grid, series.time, series.code)
    if not inside.all():
        data.write_series(inside, folder / "inside.nii.gz", grid, series.time, series.code)
    if found.index is None:
        data.write_image(found.reference, folder / "reference.nii.gz", code=series.code)
    if table:
        import pandas as pd  # takes a while to load

        write_text(folder / "series.csv", pd.DataFrame(table).to_csv(index=False, float_format="%.6g"))
    return table, warped, inside


def _frame(frame: Tensor, reference: Tensor, through: DisplacementField, registrar: Registrar) -> Registration:
    """A frame as a registered pair, with the whole map as its field, examined where the registrar does so."""
    dims = through.dims
    return Registration(
        placed(frame, registrar.device),
        reference,
        Affine.identity(dims),
        through,
        registrar.intensity,
        fill=registrar.fill,
        antialias=registrar.antialias,
        checks=registrar.assess(frame, reference, through),
        settings={**registrar.describe(through.grid), **registrar.settings},
    )


def _steadiness(series: data.Series, warped: NDArray[np.float32], inside: NDArray[np.uint8]) -> dict[str, float]:
    """Standard deviation over time of what a voxel shows, mean over those that all frames show; NaN without any."""
    shown = inside.all(axis=-1)
    if not shown.any():
        return {"before_temporal_sd": math.nan, "temporal_sd": math.nan}
    lying = [frame[0].numpy()[shown] for frame in series.frames]
    following = [warped[..., number][shown] for number in range(warped.shape[-1])]
    return {f"{name}temporal_sd": _deviation(frames) for name, frames in (("before_", lying), ("", following))}


def _deviation(frames: list[NDArray[np.float32]]) -> float:
    mean = np.mean(frames, axis=0, dtype=np.float64)
    return float(np.sqrt(sum((frame - mean) ** 2 for frame in frames) / len(frames)).mean())


def _write_drawn(found: SeriesRegistration, drawn: _Drawn, series: data.Series, folder: Path) -> None:
    """Carry a label and points to the reference and to every frame, each in one step."""
    grid = series.grid
    if drawn.label is not None:
        label, carried = plain(drawn.label, device=found.reference.device), []
        for number in (None, *range(len(series.frames))):
            through = found.between(number, drawn.frame)
            carried.append(resample(label, grid, through, grid=Grid.of(drawn.label), mode="nearest")[0].cpu())
        data.write_image(carried[0], folder / "warped_label.nii.gz", grid, code=series.code)
        whole = torch.cat(carried[1:]).movedim(0, -1).numpy()
        smallest = np.min_scalar_type(int(whole.max()))
        data.write_series(whole.astype(smallest), folder / "labels.nii.gz", grid, series.time, series.code)
    if drawn.points is not None:
        names = {None: "warped_points.csv"} | {n: f"frame_{n:03d}_points.csv" for n in range(len(series.frames))}
        for number, name in names.items():
            moved = map_points(found.between(drawn.frame, number), drawn.points.positions)
            data.write_points(data.Points(moved, drawn.points.names), folder / name)


@contextmanager
def _kept(output_dir: str | Path, belongs: list[Any], grid: Grid) -> Iterator[MutableMapping]:
    """Maps of a run that was killed, by round and frame, in a hidden folder that goes when the body ends.

    After a ValueError it goes too: the same files would fail again.

    Args:
        output_dir: that the folder lies in.
        belongs: what the maps depend on; those of anything else are not taken, and go at the end, too.
        grid: of the maps.
    """
    key = hashlib.sha256(json.dumps(belongs, sort_keys=True).encode()).hexdigest()[:12]
    folder = Path(output_dir) / f".series_{key}"
    try:
        yield _Kept(folder, grid)
    except ValueError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    for left in (file for file in Path(output_dir).glob(".series_*") if KEPT.fullmatch(file.name)):
        shutil.rmtree(left, ignore_errors=True)


class _Kept(MutableMapping):
    """Fields in files; one that can't be read is not there."""

    def __init__(self, folder: Path, grid: Grid) -> None:
        self.folder, self.grid = folder, grid

    def _file(self, key: tuple[int, int]) -> Path:
        return self.folder / f"{key[0]}_{key[1]}.pt"

    def __getitem__(self, key: tuple[int, int]) -> DisplacementField:
        try:
            return DisplacementField(torch.load(self._file(key), map_location="cpu", weights_only=True), self.grid)
        except Exception as error:
            raise KeyError(key) from error

    def __setitem__(self, key: tuple[int, int], field: DisplacementField) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(self._file(key), field.ddf.cpu())

    def __delitem__(self, key: tuple[int, int]) -> None:
        self._file(key).unlink()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return (tuple(map(int, file.stem.split("_"))) for file in self.folder.glob("*.pt"))  # type: ignore[misc]

    def __len__(self) -> int:
        return len([*self.folder.glob("*.pt")])
