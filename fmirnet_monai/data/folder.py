"""A user's own volumes and labels: a folder with name patterns, or a table of paths, in any format ITK reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fmirnet_monai.formats import image_files, stem
from fmirnet_monai.spatial import Grid
from fmirnet_monai.utils import read_json, reading

from .images import read_image, read_label
from .volume import Volume, keep_label, natural_order, require_folder


@dataclass(frozen=True)
class Case:
    """Files of one subject: an image and, perhaps, its label."""

    subject: str
    image: Path
    label: Path | None = None


def find_folder_cases(source_dir: str | Path, images: str = "image_*", labels: str = "label_*") -> list[Case]:
    """Match the images of a folder with their labels by the part of the name that ``*`` stands for.

    Args:
        source_dir: folder of files, or of DICOM series folders.
        images: pattern of the images with one ``*``, relative to ``source_dir``, such as ``"imagesTr/*.nii.gz"``.
        labels: pattern of the labels with one ``*``; an empty string for none.

    Returns:
        one case per image, in natural order.

    Raises:
        FileNotFoundError: when the folder does not exist or nothing matches.
        ValueError: when a pattern lacks its ``*``, or an image has no label.
    """
    folder = require_folder(source_dir, "source_dir")
    found = match_files(folder, images, "images")
    if not found:
        raise FileNotFoundError(
            f"images: nothing in {folder} matches {images!r} and is an image; a pattern for a rare suffix ends in it."
        )
    label_of = match_files(folder, labels, "labels") if labels else {}
    if labels and (missing := sorted(set(found) - set(label_of))):
        raise ValueError(
            f"labels: {len(missing)} of {len(found)} images have no label matching {labels!r} in {folder}, the first "
            f"{found[missing[0]].name}; add them, or pass an empty pattern to go without labels."
        )
    return [Case(name, path, label_of.get(name)) for name, path in found.items()]


def read_case_table(table: str | Path) -> list[Case]:
    """Cases from a CSV or JSON table with the columns ``image`` and, if wanted, ``label`` and ``subject``.

    Paths may be relative to the table's folder. JSON is a list of objects.

    Raises:
        FileNotFoundError: when the table or a file it names does not exist.
        ValueError: when the table has no column ``image`` or no row, or names a subject twice.
    """
    path = Path(table)
    cases = []
    for row in read_table(path, ("image",)):
        image = path.parent / str(row["image"])
        label = path.parent / str(row["label"]) if row.get("label") else None
        for file in (image, label):
            if file is not None and not file.exists():
                raise FileNotFoundError(f"{path}: names a file that does not exist: {file}")
        subject = row.get("subject")
        cases.append(Case(stem(image) if subject in (None, "") else str(subject), image, label))
    names = [case.subject for case in cases]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path}: subjects named more than once: {doubled}; add a column 'subject' with unique names.")
    return cases


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a CSV or JSON table (a list of objects) that has ``columns`` filled in each.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it can't be read, has no row, or one of ``columns`` is not filled.
    """
    if not path.is_file():
        raise FileNotFoundError(f"table: no such file: {path}")
    with reading(path, "can't be read as a table: {}; write it again, as CSV in UTF-8 or as JSON."):
        rows: Any = (
            read_json(path)
            if path.suffix.lower() == ".json"
            else pd.read_csv(path, dtype=str, encoding="utf-8-sig").replace({np.nan: None}).to_dict("records")
        )
    filled = isinstance(rows, list) and all(isinstance(row, dict) and all(map(row.get, columns)) for row in rows)
    if not rows or not filled:
        needed = " and ".join(map(repr, columns))
        raise ValueError(f"{path}: needs at least one row and a column {needed} that is filled in each.")
    return list(rows)


def read_folder_case(
    case: Case,
    label_id: int | None = None,
    intensity_scale: float = 1.0,
    intensity_offset: float = 0.0,
    percentiles: Sequence[float] | None = None,
    label_numbers: Sequence[int] | None = None,
) -> Volume:
    """Read one case in any format of :py:func:`read_image` (NIfTI, MHA, NRRD, a DICOM series folder, …).

    Args:
        case: files to read.
        label_id: the label to keep, as 1; None keeps all labels as they are.
        intensity_scale: factor on the stored intensities, applied before the offset.
        intensity_offset: added to the scaled intensities, for data sets that stored a window and not Hounsfield units.
        percentiles: two of the volume's, brought to 0 and 1000, for MR and other images without absolute intensities.
        label_numbers: new numbers of the labels 1, 2, … in turn, 0 to leave one out; in place of ``label_id``.

    Raises:
        ValueError: for a file that can't be read or is not a volume, NaN, a label on another grid, one that lacks
            ``label_id`` or has more labels than ``label_numbers``, both of these given, or percentiles that are not two
            rising numbers in 0..100 or are one intensity.
    """
    if label_id is not None and label_numbers is not None:
        raise ValueError("give either label_id or label_numbers.")
    image, affine = _load(case.image, read_image)
    label = None
    if case.label is not None:
        stored, label_affine = _load(case.label, read_label)
        grid, label_grid = Grid(image.shape, affine), Grid(stored.shape, label_affine)
        if not label_grid.matches(grid, tolerance=0.1):
            raise ValueError(
                f"{case.label}: its grid is not that of {case.image.name}: {label_grid.difference(grid)}; resample the "
                "label onto the image."
            )
        label = keep_label(stored, label_id, case.label)
        if label_numbers is not None:
            label = _renumbered(label, label_numbers, case.label)
    if percentiles is not None:
        intensity_scale, intensity_offset = _between(image, percentiles, case.image)
    return Volume(case.subject, image * intensity_scale + intensity_offset, affine, label)


def _between(image: NDArray, percentiles: Sequence[float], source: Path) -> tuple[float, float]:
    """Scale and offset that bring two percentiles of an image to 0 and 1000."""
    if len(percentiles) != 2 or not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise ValueError(f"percentiles must be two rising numbers in 0..100, such as 0.5,99.5, got {percentiles}.")
    low, high = np.percentile(image, percentiles)
    if low == high:
        raise ValueError(f"{source}: its percentiles {percentiles} are one intensity, {low:g}; take others.")
    return float(1000 / (high - low)), float(-1000 * low / (high - low))


def _renumbered(label: NDArray[np.uint8], numbers: Sequence[int], source: Path) -> NDArray[np.uint8]:
    """The labels 1, 2, … with these numbers."""
    if any(not 0 <= number <= 255 for number in numbers):
        raise ValueError(f"label_numbers must lie in 0..255, got {list(numbers)}.")
    if label.max() > len(numbers):
        raise ValueError(f"label_numbers: {source} has a label {label.max()}, but {len(numbers)} numbers are given.")
    return np.array([0, *numbers], np.uint8)[label]


def _load(path: Path, read: Callable[..., Any]) -> tuple[np.ndarray, np.ndarray]:
    data = read(path, track_meta=False)
    if data.dim() != 4:
        raise ValueError(f"{path}: expected a volume of 3 axes, got shape {tuple(data.shape[1:])}.")
    return data.numpy()[0], np.asarray(data.affine, dtype=float)


def match_files(folder: Path, pattern: str, name: str) -> dict[str, Path]:
    """Images of :py:func:`fmirnet_monai.formats.image_files` by subject, in natural order.

    Raises:
        ValueError: naming ``name`` for a pattern without its ``*``, or two images of one subject.
    """
    if pattern.count("*") != 1:
        raise ValueError(f"{name}: the pattern needs exactly one '*', which names the subject, got {pattern!r}.")
    try:
        found = image_files(folder, pattern)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return dict(sorted(found.items(), key=lambda item: natural_order(Path(item[0]))))
