"""Files in, files out: what the commands on images, transforms and points do."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmirnet_monai import data, registration, report
from fmirnet_monai.formats import (
    TRANSFORMS,
    WRITTEN_FORMS,
    WRITTEN_IMAGES,
    WRITTEN_POINTS,
    WRITTEN_TRANSFORMS,
    WRITTEN_VOLUMES,
    form_of,
    suffix_of,
)
from fmirnet_monai.output import (
    METRICS,
    SERIES,
    files_of,
    require_output,
    require_series_folder,
    result_folder,
)
from fmirnet_monai.registration import Method, Registration
from fmirnet_monai.registration.intensity import Percentiles, seen_intensities
from fmirnet_monai.registration.measure import field_metrics, image_metrics, label_metrics, point_metrics
from fmirnet_monai.registration.result import map_points
from fmirnet_monai.resume import KEY, files_in, result_key
from fmirnet_monai.spatial import Affine, DisplacementField, Grid, Map, chain, invert, resample
from fmirnet_monai.spatial.foreign import require_images
from fmirnet_monai.spatial.itk import own_grid, read_transform, write_transform
from fmirnet_monai.spatial.roundtrip import Inversion
from fmirnet_monai.utils import digest, replacing, versions, write_text

FORMATS = ("nifti", "dicom")
SCHEMA = 1  # of metrics.json, whose keys are in docs/background/metrics.md
Images = tuple[str | None, str | None]  # moving and fixed, which a transform of FSL or AFNI was made for
UNNAMED: Images = (None, None)


@dataclass(frozen=True)
class Outputs:
    """What is written of a registration beside the images and the transform.

    Attributes:
        report: ``report.html``.
        inverse: the map back, ``inverse_displacement.nii.gz``.
        metrics: figures in ``metrics.json``.
        dtype: ``float32``, or ``same``: the warped image is stored as the moving one is, rounded and clipped.
        format: ``nifti``, or ``dicom``: the warped image, its label and the map are DICOM, the image as ``same``.
    """

    report: bool = True
    inverse: bool = True
    metrics: bool = True
    dtype: str = "float32"
    format: str = "nifti"

    def __post_init__(self) -> None:
        data.check_dtype(self.dtype)
        if self.format not in FORMATS:
            raise ValueError(f"format must be {' or '.join(FORMATS)}, got {self.format!r}.")


def register_files(
    pair: Mapping[str, Any], output_dir: str | Path, method: Method, outputs: Outputs | None = None
) -> Registration:
    """Register one pair of files and write everything about it, all or nothing.

    Args:
        pair: paths ``moving`` and ``fixed`` and any of the others in :py:data:`fmirnet_monai.data.PATH_KEYS`.
        output_dir: folder to write.
        method: how.
        outputs: what to write; what isn't wanted isn't made.

    Raises:
        FileNotFoundError: for a file that does not exist.
        ValueError: for one that can't be used, in one line that names it.
    """
    wanted = outputs or Outputs()
    dicom = wanted.format == "dicom"
    if dicom:
        require_series_folder(output_dir)
    inputs = files_in(pair)
    with result_folder(output_dir, inputs) as folder:
        series = data.DicomPair.read(pair["moving"], pair["fixed"], "moving_label" in pair) if dicom else None
        loaded = data.read_pair(pair)
        stored = data.stored_as(pair["moving"]) if wanted.dtype == data.SAME and not dicom else None
        result = method.register(**loaded.arguments())
        grid, code = result.fixed_grid, data.nifti_code(pair["fixed"])
        if series is None:
            _write_nifti(result, stored, code, folder)
        else:
            _write_dicom(result, series, folder)
        write_transform(result.map, folder / "transform.h5")
        if wanted.inverse:
            write_transform(result.inverse, folder / "inverse_displacement.nii.gz")
        if not result.inside.all():
            data.write_image(result.inside[None].to(torch.uint8), folder / "inside.nii.gz", grid, code=code)
        if result.checks.uncertainty is not None:
            data.write_image(result.checks.uncertainty[None], folder / "uncertainty.nii.gz", grid, code=code)
        if result.warped_points is not None and loaded.moving_points is not None:
            names = loaded.moving_points.names
            data.write_points(data.Points(result.warped_points, names), folder / "warped_points.csv")
        if wanted.report:
            report.write_report(result, folder / "report.html", wanted.metrics, wanted.inverse)
        figures = result.metrics if wanted.metrics else {}
        sha256 = {file: digest(file) for file in inputs}
        content = {
            "pair": {key: value if isinstance(value, list) else str(value) for key, value in pair.items()},
            "metrics": {name: or_none(value) for name, value in figures.items()},
            **(_judged(result.verdict) if wanted.metrics else {}),
            **({"inverse_residual": or_none(result.inversion.residual)} if wanted.inverse else {}),
            **({"notes": result.notes} if result.notes else {}),
            "seconds": result.timings,
            "settings": result.settings,
            KEY: result_key(pair, sha256, depends_on(method, wanted)),
        }
        write_metrics(folder, content, sha256)
    return result


def depends_on(method: Method, outputs: Outputs) -> dict[str, Any]:
    """What a registration depends on beside its files; see :py:func:`fmirnet_monai.resume.result_key`."""
    return {"method": method.identity(), "outputs": asdict(outputs)}


def write_metrics(folder: Path, content: Mapping[str, Any], sha256: Mapping[str, str]) -> None:
    """Write ``metrics.json``, the last file of a result, with its own keys and those that each has."""
    files = sorted([METRICS, *files_of(folder)])
    whole = {"schema": SCHEMA, **content, "versions": versions(), "sha256": sha256, "files": files}
    write_text(folder / METRICS, json.dumps(whole, indent=1) + "\n")


def _write_nifti(result: Registration, stored: data.Stored | None, code: int, folder: Path) -> None:
    """The warped image, its label and the map."""
    data.write_image(result.warped, folder / "warped.nii.gz", stored=stored, code=code)
    write_transform(result.field, folder / "displacement.nii.gz")
    if result.warped_label is not None:
        data.write_image(result.warped_label, folder / "warped_label.nii.gz", code=code)


def _write_dicom(result: Registration, series: data.DicomPair, folder: Path) -> None:
    """The same as DICOM."""
    result.notes.extend(series.notes())
    written = data.write_dicom_series(series, result.warped, result.field, Grid.of(result.moving), folder / SERIES)
    found = result.map if result.deformable.ddf.any() else result.affine
    data.write_dicom_transform(series, found, folder / "transform.dcm")
    if result.warped_label is not None and not result.warped_label.any():
        result.notes.append("Nothing of the moving label lies on the fixed image: there is no warped_label.dcm.")
    elif result.warped_label is not None:
        data.write_dicom_label(series, result.warped_label, written, folder / "warped_label.dcm")


def split_files(text: str | None) -> list[str]:
    """File names separated by commas; one that holds commas itself is told by being there."""
    parts = text.split(",") if text else []
    files = []
    while parts:
        joined = [",".join(parts[:n]) for n in range(1, len(parts) + 1)]
        files.append(next((name for name in joined if Path(name).exists()), joined[0]))
        parts = parts[files[-1].count(",") + 1 :]
    return files


@dataclass(frozen=True)
class PropagationOptions:
    """How labels are carried to slices without; see the arguments of the command ``propagate``."""

    axis: int | None = None
    slices: Sequence[int] | None = None
    label_ids: Sequence[int] | None = None
    train_epochs: int = 0

    def __post_init__(self) -> None:
        if self.train_epochs < 0:
            raise ValueError(f"train_epochs must be at least 0, got {self.train_epochs}.")


def propagate_file(
    image: str,
    label: str,
    output: str,
    method: Method,
    options: PropagationOptions | None = None,
    confidence: str | None = None,
) -> registration.Propagation:
    """Label the slices between annotated ones and write the whole label and its confidence.

    See ``propagate`` and, with epochs of training, ``relabel`` of :py:mod:`fmirnet_monai.registration`; what the former
    gives is written before the latter begins.

    Raises:
        FileNotFoundError: for a file that does not exist.
        ValueError: for one that can't be used, or annotated slices that nothing can be done with.
    """
    suffix = require_output(output, WRITTEN_VOLUMES, (image, label))
    beside = confidence or f"{str(output)[: -len(suffix)]}_confidence{suffix}"
    require_output(beside, WRITTEN_VOLUMES, (image, label))
    chosen = options or PropagationOptions()
    volume, sparse = data.read_image(image, track_meta=False), data.read_label(label, track_meta=False)
    if not Grid.of(volume).matches(Grid.of(sparse), tolerance=0.1):
        raise ValueError(
            f"{label}: lies on another grid than {image}: {Grid.of(sparse).difference(Grid.of(volume))}; resample it "
            "onto the image by nearest neighbour."
        )
    if chosen.label_ids is not None:
        found = [int(i) for i in torch.as_tensor(sparse).unique() if i != 0]
        if unknown := [i for i in chosen.label_ids if i not in found]:
            raise ValueError(f"label_ids: {label} has no label {unknown[0]}; it holds {', '.join(map(str, found))}.")
        sparse[~torch.isin(sparse, torch.tensor(chosen.label_ids))] = 0
    try:
        annotation = registration.Annotation.find(sparse, chosen.axis, chosen.slices)
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from error

    def write(found: registration.Propagation) -> registration.Propagation:
        with replacing(output) as whole, replacing(beside) as other:  # both or none
            data.write_image(found.label, whole, Grid.of(volume))
            data.write_image(found.confidence, other, Grid.of(volume))
        return found

    scaled, registrar = method.slice_registrar(volume)
    result = write(registration.propagate(scaled, sparse, annotation, registrar, progress=method.progress))
    if epochs := chosen.train_epochs:
        result = write(registration.relabel(scaled, result, epochs, method.torch_device(), progress=method.progress))
    return result


def warp_file(
    image: str,
    transform: str,
    output: str,
    reference: str | None,
    interpolation: str,
    fill: float | None,
    antialias: bool,
    dtype: str = "float32",
    images: Images = UNNAMED,
) -> float:
    """Resample an image or label through a transform, see the command ``warp``; gives what isn't seen, in percent."""
    if interpolation not in ("linear", "nearest"):
        raise ValueError(f"interpolation must be linear or nearest, got {interpolation!r}.")
    if antialias and interpolation == "nearest":
        raise ValueError("antialias: is for images; labels, with interpolation nearest, are never smoothed.")
    data.check_dtype(dtype)
    require_output(output, WRITTEN_IMAGES, (image, transform, reference, *images))
    read = data.read_image if interpolation == "linear" else data.read_label
    source = read(image, track_meta=False)
    stored = data.stored_as(image) if dtype == data.SAME else None
    found = _read(transform, images)
    if found.dims != source.dim() - 1:
        raise ValueError(f"{transform}: is a {found.dims}-D transform, {image} has {source.dim() - 1} axes.")
    grid = _grid(found, transform, reference)
    mode = "bilinear" if interpolation == "linear" else "nearest"
    values, inside = resample(source, grid, found, mode=mode, fill=fill, antialias=antialias)
    data.write_image(values, output, grid, stored, data.nifti_code(reference or transform))
    return _percent(~inside)


def warp_points_file(points: str, transform: str, output: str, reference: str | None, images: Images = UNNAMED) -> Path:
    """Take points through a transform, see the command ``warp_points``."""
    require_output(output, WRITTEN_POINTS, (points, transform, reference, *images))
    found = _read(transform, images)
    cloud = data.read_points(points, found.dims)
    grid = _known_grid(found, transform, reference)
    if grid is not None:
        data.check_points_inside(cloud, grid, points)
    return data.write_points(data.Points(map_points(found, cloud.positions), cloud.names), output)


def compose_files(
    transforms: Sequence[str],
    output: str,
    reference: str | None,
    form: str | None = None,
    images: Images = UNNAMED,
) -> float:
    """Join transforms, see the command ``compose``; gives how much leads out of one of them, in percent."""
    written = form_of(output, form)
    if len(transforms) < (2 if form is None and written == "itk" else 1):
        raise ValueError(
            f"transforms: give two or more files separated by commas, or one and its new --format, got "
            f"{list(transforms)}."
        )
    require_output(output, WRITTEN_FORMS[written], (*transforms, reference, *images))
    moving, fixed = map(_place, images)
    require_images(output, written, moving=moving, **({} if known_field(output) else {"fixed": fixed}))
    maps = [read_transform(path, *((moving, fixed) if len(transforms) == 1 else ())) for path in transforms]
    for path, found in zip(transforms, maps, strict=True):
        if found.dims != maps[-1].dims:
            raise ValueError(f"{path}: is a {found.dims}-D transform, the last one is {maps[-1].dims}-D.")
    whole = chain(maps[::-1])
    if not known_field(output):
        write_transform(whole, output, form=written, moving=moving, fixed=fixed)
        return 0.0
    place = images[1] if written != "itk" else None
    field, inside = DisplacementField.of(whole, _grid(whole, transforms[-1], reference or place))
    write_transform(field, output, form=written, moving=moving)
    return _percent(~inside)


def invert_file(transform: str, output: str, reference: str | None, images: Images = UNNAMED) -> Inversion | None:
    """Invert a transform, see the command ``invert``; gives how it went, None for an affine one, which goes exactly."""
    require_output(output, (*WRITTEN_VOLUMES, *WRITTEN_TRANSFORMS), (transform, reference, *images))
    found = _read(transform, images)
    if isinstance(found, Affine) and not known_field(output):
        write_transform(found.inverse(), output)
        return None
    inversion = invert(found, _grid(found, transform, reference))
    write_transform(inversion.field, output)
    return inversion


def jacobian_file(transform: str, output: str, reference: str | None, images: Images = UNNAMED) -> dict[str, float]:
    """Write the map of Jacobian determinants, see the command ``jacobian``; gives range and folding."""
    require_output(output, WRITTEN_IMAGES, (transform, reference, *images))
    found = _read(transform, images)
    field, _ = DisplacementField.of(found, _grid(found, transform, reference))
    determinant = field.jacobian_determinant()
    data.write_image(determinant[None], output, field.grid)
    extremes = {"minimum": float(determinant.min()), "maximum": float(determinant.max())}
    return {**extremes, **field_metrics(field, determinant)}


def measure_files(files: Mapping[str, str | None], output: str | None) -> dict[str, float]:
    """Metrics of files that exist, see the command ``metrics``."""
    given = {name: str(path) for name, path in files.items() if path}
    if output:
        require_output(output, None, given.values())
    values: dict[str, float] = {}
    if "image" in given and "fixed_image" in given:
        image, fixed = _alike(given["image"], given["fixed_image"], data.read_image)
        inside = None
        if "mask" in given:
            inside = _alike(given["mask"], given["fixed_image"], data.read_label, fixed)[0][0] > 0
        counted = torch.ones(fixed.shape[1:], dtype=torch.bool) if inside is None else inside
        scaled = [seen_intensities(Percentiles(), one, counted) for one in (image, fixed)]
        values |= image_metrics(scaled[0], scaled[1], inside)
    if "label" in given and "fixed_label" in given:
        read = partial(data.read_label, empty=True)  # what a method found may be nothing
        values |= label_metrics(*_alike(given["label"], given["fixed_label"], read))
    images = (given.get("moving"), given.get("fixed"))
    found = _read(given["transform"], images) if "transform" in given else None
    if found is not None:
        grid = _known_grid(found, given["transform"], given.get("reference"))
        if grid is not None:
            values |= field_metrics(DisplacementField.of(found, grid)[0])
        elif "fixed_points" not in given:
            raise ValueError(f"{given['transform']}: has no grid of its own; name a --reference image.")
    if "moving_points" in given and "fixed_points" in given:
        dims = found.dims if found else 3
        moving, fixed_points = (data.read_points(given[f"{name}_points"], dims) for name in ("moving", "fixed"))
        moving = data.paired(moving, fixed_points)
        mapped = map_points(found, fixed_points.positions) if found else fixed_points.positions
        values |= point_metrics(mapped, moving.positions)
    if not values:
        raise ValueError(
            "give --image with --fixed_image, --label with --fixed_label, --transform, or --moving_points with "
            "--fixed_points."
        )
    if output:
        write_text(Path(output), json.dumps({n: or_none(v) for n, v in values.items()}, indent=1) + "\n")
    return values


def _alike(
    path: str, fixed_path: str, read: Callable[..., Tensor], fixed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Two images of one grid."""
    one = read(path, track_meta=False)
    other = read(fixed_path, track_meta=False) if fixed is None else fixed
    if not Grid.of(one).matches(Grid.of(other), tolerance=0.1):
        difference = Grid.of(one).difference(Grid.of(other))
        raise ValueError(f"{path}: lies on another grid than {fixed_path}: {difference}; warp it onto that one.")
    return one, other


def known_field(output: str) -> bool:
    """Whether a file is to hold a displacement field, not a transform of ITK."""
    return not suffix_of(output, TRANSFORMS)


def _grid(found: Map, transform: str, reference: str | None) -> Grid:
    """The grid that a result gets: that of a reference image, or the transform's own."""
    grid = _known_grid(found, transform, reference)
    if grid is None:
        raise ValueError(f"{transform}: has no grid of its own; name a --reference image.")
    return grid


def _known_grid(found: Map, transform: str, reference: str | None) -> Grid | None:
    grid = _place(reference) or own_grid(found)
    if grid is not None and grid.dims != found.dims:
        raise ValueError(f"{transform}: is a {found.dims}-D transform, {reference} has {grid.dims} axes.")
    return grid


def _read(transform: str, images: Images) -> Map:
    return read_transform(transform, *map(_place, images))


def _place(image: str | None) -> Grid | None:
    return Grid.of(data.read_image(image, track_meta=False)) if image else None


def _percent(where: torch.Tensor) -> float:
    return 100.0 * float(where.float().mean())


def _judged(verdict: registration.Verdict) -> dict[str, Any]:
    return {
        "verdict": verdict.grade,
        "verdict_reasons": list(verdict.reasons),
        "verdict_risk": or_none(round(verdict.risk, 4)),
    }


def or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
