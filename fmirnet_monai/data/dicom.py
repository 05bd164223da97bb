"""Where DICOM slices lie, by their own tags: ITK makes up what it doesn't find and leaves out what it can't read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmirnet_monai.spatial import Grid
from fmirnet_monai.spatial.dicom_elements import check_elements, is_dicom
from fmirnet_monai.spatial.geometry import flip
from fmirnet_monai.utils import reason, warn

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66"
EVEN = 0.1  # of the distance of slices, by which one may lie off
RIGHT = np.cos(np.deg2rad(0.1))  # angle of the stack to its slices


@dataclass(frozen=True)
class Slice:
    """A slice's place as its tags give it, in LPS mm.

    Attributes:
        source: file, and frame where it has several.
        size: columns and rows.
        position: of the first pixel's centre.
        directions: ``(2, 3)``, along a row and along a column.
        spacing: along a row and along a column.
    """

    source: str
    size: tuple[int, int]
    position: NDArray[np.float64]
    directions: NDArray[np.float64]
    spacing: tuple[float, float]


def series_files(folder: Path) -> list[str]:
    """Files of the one DICOM series in a folder, in any order.

    Raises:
        ValueError: when there is none or more than one, or a file that should be part of it can't be read.
    """
    series: dict[str, list[str]] = {}
    for file in sorted(folder.iterdir()):
        if file.is_file() and (uid := _series_of(file)) is not None:
            series.setdefault(uid, []).append(str(file))
    if not series:
        raise ValueError(f"{folder}: no DICOM series in this folder; give an image file, or the folder of the slices.")
    if len(series) > 1:
        found = ", ".join(f"{uid} ({len(files)} files)" for uid, files in series.items())
        raise ValueError(
            f"{folder}: holds {len(series)} DICOM series: {found}; put each in a folder of its own and give that one."
        )
    (files,) = series.values()
    read = {Path(file).name for file in files}
    lost = sorted(file.name for file in folder.iterdir() if _looks_like_a_slice(file) and file.name not in read)
    if lost:
        raise ValueError(
            f"{folder}: {len(lost)} of {len(lost) + len(read)} files can't be read as slices of the series, the first "
            f"{lost[0]}: empty, cut off or no DICOM image; get them again, or move away what is none of it."
        )
    return files


def _series_of(file: Path) -> str | None:
    """Name of the series of a file of pixels; None of one that is no DICOM, holds none, or is damaged."""
    import pydicom

    try:
        if not is_dicom(file) or not check_elements(file):
            return None
        found = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        return str(found.get("SeriesInstanceUID", ""))
    except Exception:  # of pydicom; what looks like a slice then is one that is lost
        return None


def _looks_like_a_slice(file: Path) -> bool:
    suffix = file.suffix.lower()
    named = suffix in ("", ".dcm", ".dicom", ".ima") or suffix[1:].isdigit()
    return named and file.is_file() and not file.name.startswith(".") and file.name.upper() != "DICOMDIR"


def slices_of(files: Sequence[str]) -> list[Slice]:
    """The slices of the files of a series, or of the one file that holds them as its frames; none of a single picture.

    Raises:
        ValueError: for a file without a place or with another size than the rest, or for a segmentation.
    """
    found = [part for file in files for part in _frames(file, alone=len(files) == 1)]
    sizes = [part.size for part in found]
    usual = max(set(sizes), key=sizes.count, default=(0, 0))
    if other := next((part for part in found if part.size != usual), None):
        raise ValueError(
            f"{other.source}: is {other.size[0]} x {other.size[1]}, other slices of the series are {usual[0]} x "
            f"{usual[1]}; move it elsewhere if it is a localizer or a screenshot."
        )
    return found


def _frames(file: str, alone: bool) -> list[Slice]:
    """The slices of one file; of a picture without a place, none."""
    dataset = _read_tags(file)
    count = int(dataset.get("NumberOfFrames") or 1)
    if count > Path(file).stat().st_size:
        raise ValueError(f"{file}: states {count} frames, more than it has bytes; get it again.")
    if not alone and count > 1:
        raise ValueError(f"{file}: is one of several files of {count} frames; give one of them by its own name.")
    if alone and count == 1 and not dataset.get("PixelSpacing"):
        warn(f"{file}: has no PixelSpacing; its pixels are taken to be 1 mm wide.")
    if alone and count == 1:
        return []
    if "SpacingBetweenSlices" in dataset and not dataset.SpacingBetweenSlices:
        raise ValueError(f"{file}: its SpacingBetweenSlices is 0; remove it: dcmodify -ea SpacingBetweenSlices *.dcm")
    size = int(dataset.Columns), int(dataset.Rows)
    parts = []
    for index in range(count):
        source = file if count == 1 else f"{file}, frame {index + 1}"
        position, directions, spacing = (
            _numbers(dataset, index, tag, group, source)
            for tag, group in (
                ("ImagePositionPatient", "PlanePositionSequence"),
                ("ImageOrientationPatient", "PlaneOrientationSequence"),
                ("PixelSpacing", "PixelMeasuresSequence"),
            )
        )
        parts.append(Slice(source, size, position, directions.reshape(2, 3), (float(spacing[1]), float(spacing[0]))))
    return parts


def _read_tags(file: str) -> Any:
    """All of a file but its pixels.

    Raises:
        ValueError: when it can't be read, or is a segmentation.
    """
    import pydicom

    try:
        dataset = pydicom.dcmread(file, stop_before_pixels=True)
    except Exception as error:  # pydicom raises what its parts do
        raise ValueError(f"{file}: can't be read as DICOM ({reason(error)}); get it again.") from error
    if str(dataset.get("SOPClassUID", "")).startswith(SEGMENTATION):
        raise ValueError(
            f"{file}: is a DICOM segmentation, whose frames are no slices; convert it to a label map, such as by "
            "segimage2itkimage of dcmqi or by 3D Slicer (Quantitative Reporting), and give that."
        )
    return dataset


def _numbers(dataset: Any, index: int, tag: str, group: str, source: str) -> NDArray[np.float64]:
    """A tag of a frame: its own, that of all frames, or that of the file."""
    groups = [dataset.get(name) for name in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")]
    places = [items[min(index, len(items) - 1)] for items in groups if items]
    holders = [part[0] for place in places if (part := place.get(group))]
    value = next((holder.get(tag) for holder in [*holders, dataset] if holder.get(tag)), None)
    if value is None:
        raise ValueError(
            f"{source}: has no {tag}, without which its place in space is not known; export the series again from "
            "where it came, with its geometry."
        )
    numbers = np.asarray(value, dtype=np.float64)
    if not np.isfinite(numbers).all() or (tag == "PixelSpacing" and (numbers <= 0).any()):
        raise ValueError(f"{source}: its {tag} is {numbers.tolist()}; export the series again from where it came.")
    return numbers


def stacked(slices: Sequence[Slice], path: Path) -> tuple[list[int], Grid]:
    """The order of slices along their normal, as their orientation turns it, and the grid that they make.

    Raises:
        ValueError: when they are not parallel, evenly spaced and at right angles to the direction that they lie in.
    """
    first = slices[0]
    for part in slices:
        if not np.allclose(part.directions, first.directions, atol=1e-3) or part.spacing != first.spacing:
            raise ValueError(
                f"{path}: slices differ in orientation or pixel size, {part.source} from {first.source}; put each "
                "stack in a folder of its own."
            )
    along = np.cross(*first.directions)
    heights = np.array([part.position @ along for part in slices])
    order = [int(i) for i in heights.argsort(kind="stable")]
    heights = heights[order]
    origin, last = slices[order[0]].position, slices[order[-1]].position
    step = (last - origin) / max(1, len(slices) - 1)
    distance = float(np.linalg.norm(step))
    if (same := np.diff(heights) < 1e-3).any():
        one = int(same.argmax())
        raise ValueError(
            f"{path}: {slices[order[one]].source} and {slices[order[one + 1]].source} lie at one place, as in series "
            "over time or of several contrasts; put one volume in a folder of its own."
        )
    if along @ step < RIGHT * distance:
        raise ValueError(
            f"{path}: slices are not stacked at right angles (gantry tilt), which ITK can't express; correct the tilt, "
            "for instance with dcm2niix, and give the corrected volume."
        )
    off = float(abs(heights - np.linspace(heights[0], heights[-1], len(heights))).max())
    if off > EVEN * distance:
        raise ValueError(
            f"{path}: slices are not evenly spaced, one lies {off:.2f} mm off; look for a missing or "
            "doubled slice, or several acquisitions in one series."
        )
    affine = np.eye(4)
    affine[:3, :3] = np.stack([*first.directions, along], axis=1) * [*first.spacing, distance]
    affine[:3, 3] = origin
    affine[:3] = flip(3) @ affine[:3]
    return order, Grid((*first.size, len(slices)), affine)
