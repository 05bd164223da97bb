"""Files in, files out: what the commands on images, transforms and points do."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.distributed as dist
from monai.data import MetaTensor
from tqdm import tqdm

from fmirnet_monai import data
from fmirnet_monai.registration import Annotation, Method, Propagation, Registration, propagate, relabel
from fmirnet_monai.registration.base import percentiles
from fmirnet_monai.registration.measure import field_metrics, image_metrics, label_metrics, point_metrics
from fmirnet_monai.report import write_report
from fmirnet_monai.spatial import DisplacementField, Grid
from fmirnet_monai.spatial.itk import TRANSFORMS, read_transform, write_composite, write_displacement
from fmirnet_monai.utils import known_suffix, process_rank, write_text


def register_files(
    pair: Mapping[str, Any], output_dir: str | Path, method: Method, report: bool = True
) -> Registration:
    """Register one pair of files and write everything about it, all or nothing.

    Args:
        pair: paths ``moving`` and ``fixed`` and, if wanted, ``moving_label``, ``fixed_label``, ``moving_points``,
            ``fixed_points``.
        output_dir: folder to write.
        method: how.
        report: write ``report.html``.

    Raises:
        FileNotFoundError: for a file that does not exist.
        ValueError: for one that can't be used, in one line that names it.
    """
    loaded = data.read_pair(pair)
    result = method.registrar(loaded.moving, loaded.fixed).register(**loaded.arguments())
    with _whole_folder(Path(output_dir)) as folder:
        data.write_image(result.warped, folder / "warped.nii.gz")
        write_displacement(result.field, folder / "displacement.nii.gz")
        write_displacement(result.inverse, folder / "inverse_displacement.nii.gz")
        if result.settings["affine"] != "off":
            write_composite(result.affine, result.deformable, folder / "transform.h5")
        if result.warped_label is not None:
            data.write_image(result.warped_label, folder / "warped_label.nii.gz")
        if result.warped_points is not None and loaded.moving_points is not None:
            names = loaded.moving_points.names
            data.write_points(data.Points(result.warped_points, names), folder / "warped_points.csv")
        if report:
            write_report(result, folder / "report.html")
        content = {
            "pair": {key: str(value) for key, value in pair.items()},
            "metrics": {name: None if math.isnan(value) else value for name, value in result.metrics.items()},
            "inverse_residual": result.inverse_residual,
            "seconds": result.timings,
            "settings": result.settings,
        }
        write_text(folder / "metrics.json", json.dumps(content, indent=1) + "\n")
    return result


def register_datalist(
    datalist: str | Path,
    section: str,
    output_dir: str | Path,
    method: Method,
    report: bool = True,
    skip_existing: bool = False,
) -> pd.DataFrame:
    """Register every pair of a section, each into a folder of its own, and write ``summary.csv``.

    Under ``torchrun`` the pairs are shared out over the processes; the first one writes the summary. A pair that fails
    is reported and left out, the rest is done.

    Returns:
        one row a pair: its folder, its metrics, and ``error`` where it failed.
    """
    folder = Path(output_dir)
    pairs = data.load_pairs(datalist, section, must_exist=False)
    names = [f"{i:04d}_{_stem(pair['moving'])}_to_{_stem(pair['fixed'])}" for i, pair in enumerate(pairs)]
    rank, world = process_rank(), int(os.environ.get("WORLD_SIZE", "1"))
    errors: dict[str, str] = {}
    mine = list(zip(names, pairs, strict=True))[rank::world]
    for name, pair in tqdm(mine, desc="registering", unit="pair", disable=rank > 0):
        if skip_existing and (folder / name / "metrics.json").is_file():
            continue
        files = {key: value for key, value in pair.items() if key in data.PATH_KEYS}
        try:
            register_files(files, folder / name, method, report)
        except (ValueError, OSError, RuntimeError) as error:
            errors[name] = " ".join(str(error).split())
            tqdm.write(f"{name}: {errors[name]}")
    if world > 1:
        dist.init_process_group("gloo", timeout=timedelta(days=1))  # a process waits for the slowest
        gathered: list[dict[str, str]] = [{}] * world
        dist.all_gather_object(gathered, errors)
        errors = {name: error for part in gathered for name, error in part.items()}
        dist.destroy_process_group()
    rows = [{"pair": name, **_summary_row(folder / name, errors.get(name, ""))} for name in names]
    table = pd.DataFrame(rows)
    if rank == 0:
        write_text(folder / "summary.csv", table.to_csv(index=False, float_format="%.6g"))
    return table


def propagate_file(
    image: str,
    label: str,
    output: str,
    method: Method,
    axis: int | None = None,
    slices: Sequence[int] | None = None,
    label_ids: Sequence[int] | None = None,
    confidence: str | None = None,
    train_epochs: int = 0,
) -> Propagation:
    """Label the slices between annotated ones and write the whole label and its confidence.

    See ``propagate`` and, with ``train_epochs``, ``relabel`` of :py:mod:`fmirnet_monai.registration`.

    Raises:
        FileNotFoundError: for a file that does not exist.
        ValueError: for one that can't be used, or annotated slices that nothing can be done with.
    """
    suffix = known_suffix(output, data.WRITTEN_IMAGES)
    beside = confidence or f"{str(output)[: -len(suffix)]}_confidence{suffix}"
    known_suffix(beside, data.WRITTEN_IMAGES)
    if train_epochs < 0:
        raise ValueError(f"train_epochs must be at least 0, got {train_epochs}.")
    volume, sparse = data.read_image(image), data.read_label(label)
    if not Grid.of(volume).matches(Grid.of(sparse), tolerance=0.1):
        raise ValueError(
            f"{label}: lies on another grid, {tuple(sparse.shape[1:])} voxels, than {image}, "
            f"{tuple(volume.shape[1:])}; resample it onto the image by nearest neighbour."
        )
    if label_ids is not None:
        found = [int(i) for i in torch.as_tensor(sparse).unique() if i != 0]
        if unknown := [i for i in label_ids if i not in found]:
            raise ValueError(f"label_ids: {label} has no label {unknown[0]}; it holds {', '.join(map(str, found))}.")
        sparse[~torch.isin(sparse, torch.tensor(label_ids))] = 0
    try:
        annotation = Annotation.find(sparse, axis, slices)
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from error
    scaled, registrar = method.slice_registrar(volume)
    result = propagate(scaled, sparse, annotation, registrar, progress=True)
    if train_epochs:
        result = relabel(scaled, result, train_epochs, method.torch_device(), progress=True)
    data.write_image(result.label, output, Grid.of(volume))
    data.write_image(result.confidence, beside, Grid.of(volume))
    return result


def warp_file(image: str, transform: str, output: str, reference: str | None, interpolation: str) -> Path:
    """Resample an image or label through a transform, see the command ``warp``."""
    if interpolation not in ("linear", "nearest"):
        raise ValueError(f"interpolation must be linear or nearest, got {interpolation!r}.")
    source = data.read_image(image) if interpolation == "linear" else data.read_label(image)
    field = _transform(transform, reference)
    if field.grid.dims != source.dim() - 1:
        raise ValueError(f"{transform}: is a {field.grid.dims}-D transform, {image} has {source.dim() - 1} axes.")
    mode, padding = ("bilinear", "border") if interpolation == "linear" else ("nearest", "zeros")
    return data.write_image(field.warp(source, mode=mode, padding_mode=padding), output, field.grid)


def warp_points_file(points: str, transform: str, output: str, reference: str | None) -> Path:
    """Take points through a transform, see the command ``warp_points``."""
    field = _transform(transform, reference)
    cloud = data.read_points(points, field.grid.dims)
    data.check_points_inside(cloud, field.grid, points)
    return data.write_points(data.Points(field.map_points(cloud.positions), cloud.names), output)


def compose_files(transforms: Sequence[str], output: str, reference: str | None) -> Path:
    """Join transforms into one field, see the command ``compose``."""
    if len(transforms) < 2:
        raise ValueError(f"transforms: give two or more files separated by commas, got {list(transforms)}.")
    field = _transform(transforms[-1], reference)
    for path in reversed(transforms[:-1]):
        outer = read_transform(path, field.grid if Path(path).suffix.lower() in TRANSFORMS else None)
        if outer.grid.dims != field.grid.dims:
            raise ValueError(f"{path}: is a {outer.grid.dims}-D transform, the last one is {field.grid.dims}-D.")
        field = field.then(outer)
    return write_displacement(field, output)


def invert_file(transform: str, output: str, reference: str | None) -> float:
    """Invert a transform, see the command ``invert``; gives the residual in voxels."""
    inverse, residual = read_transform(transform).invert()
    write_displacement(inverse.resample(_grid(reference)) if reference else inverse, output)
    return residual


def jacobian_file(transform: str, output: str, reference: str | None) -> dict[str, float]:
    """Write the map of Jacobian determinants, see the command ``jacobian``; gives range and folding."""
    field = _transform(transform, reference)
    determinant = field.jacobian_determinant()
    data.write_image(determinant[None], output, field.grid)
    return {"minimum": float(determinant.min()), "maximum": float(determinant.max()), **field_metrics(field)}


def measure_files(files: Mapping[str, str | None], output: str | None) -> dict[str, float]:
    """Metrics of files that exist, see the command ``metrics``."""
    values: dict[str, float] = {}
    for name, read, measure in (("image", data.read_image, _scaled_metrics), ("label", data.read_label, label_metrics)):
        pair = files.get(name), files.get(f"fixed_{name}")
        if None not in pair:
            a, b = (read(str(path)) for path in pair)
            if not Grid.of(a).matches(Grid.of(b), tolerance=0.1):
                raise ValueError(f"{pair[0]} and {pair[1]} lie on different grids; warp the first onto the second.")
            values |= measure(a, b)
    transform = read_transform(str(files["transform"])) if files.get("transform") else None
    if transform is not None:
        values |= field_metrics(transform)
    if files.get("moving_points") and files.get("fixed_points"):
        dims = transform.grid.dims if transform else data.read_points(str(files["fixed_points"]), 3).positions.shape[1]
        moving, fixed = (data.read_points(str(files[f"{name}_points"]), dims) for name in ("moving", "fixed"))
        if len(moving.names) != len(fixed.names):
            raise ValueError(f"moving_points holds {len(moving.names)} points, fixed_points {len(fixed.names)}.")
        mapped = transform.map_points(fixed.positions) if transform else fixed.positions
        values |= point_metrics(mapped, moving.positions)
    if not values:
        raise ValueError(
            "give --image with --fixed_image, --label with --fixed_label, --transform, or --moving_points with "
            "--fixed_points."
        )
    if output:
        content = {name: None if math.isnan(value) else value for name, value in values.items()}
        write_text(Path(output), json.dumps(content, indent=1) + "\n")
    return values


def _scaled_metrics(image: MetaTensor, fixed: MetaTensor) -> dict[str, float]:
    return image_metrics(percentiles()(image), percentiles()(fixed))


def _grid(reference: str) -> Grid:
    return Grid.of(data.read_image(reference))


def _transform(path: str, reference: str | None) -> DisplacementField:
    return read_transform(path, _grid(reference) if reference else None)


def _stem(path: str) -> str:
    return Path(path).name.split(".")[0]


def _summary_row(folder: Path, error: str) -> dict[str, Any]:
    if error or not (folder / "metrics.json").is_file():
        return {"error": error or "not done"}
    content = json.loads((folder / "metrics.json").read_text())
    return {**content["metrics"], "seconds": sum(content["seconds"].values()), "error": ""}


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` whose files move there at the end; nothing stays behind when the body fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}_partial_", dir=target.parent))
    try:
        yield partial
        target.mkdir(exist_ok=True)
        for file in sorted(partial.iterdir()):
            os.replace(file, target / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
