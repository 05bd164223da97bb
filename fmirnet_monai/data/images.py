"""Images, labels and landmarks as a user hands them over, placed in space as ITK, ANTs and 3D Slicer place them."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fmirnet_monai.spatial import Grid
from fmirnet_monai.spatial.itk import flip_lps, grid_of_itk, set_geometry
from fmirnet_monai.utils import replacing, write_text

from .volume import check_finite

WRITTEN_IMAGES = (".nii.gz", ".nii", ".mha", ".nrrd", ".png")
READ_POINTS = (".csv", ".mrk.json", ".fcsv", ".vtk")
WRITTEN_POINTS = (".csv", ".mrk.json")
# an fcsv file's number of its coordinate system, as 3D Slicer 4 wrote it
FCSV_SYSTEMS = {"0": "RAS", "1": "LPS"}
MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


# --- images and labels -------------------------------------------------------------------------------------------


def read_image(path: str | Path) -> MetaTensor:
    """Read a 2-D or 3-D image through ITK; a volume of one slice stays 3-D.

    Args:
        path: NIfTI, MHA or MHD, NRRD, a folder with one DICOM series, a DICOM file, grey PNG or JPEG.

    Returns:
        ``(1, *spatial)`` in float32, intensities rescaled as the file says (Hounsfield units for CT), with a
        ``(D + 1, D + 1)`` affine from voxel to RAS+ mm.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it can't be read whole, is no grey image of 2 or 3 axes, holds NaN or infinity, or one value.
    """
    image = _open(Path(path).expanduser(), itk.F)
    values = _values(image)
    check_finite(values, path)
    if values.min() == values.max():
        raise ValueError(f"{path}: all its intensities are {values.flat[0]:g}; give another image.")
    return _tensor(values, image)


def read_label(path: str | Path) -> MetaTensor:
    """Read a label map from any format of :py:func:`read_image`.

    Returns:
        ``(1, *spatial)`` in int32, 0 the background, with a ``(D + 1, D + 1)`` affine from voxel to RAS+ mm.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it can't be read, or its values are not whole, are negative or all background.
    """
    image = _open(Path(path).expanduser(), itk.D)
    values = _values(image)
    check_finite(values, path)
    whole = np.rint(values)
    if np.abs(whole - values).max() > 1e-3:
        raise ValueError(
            f"{path}: holds values such as {values[np.abs(whole - values) > 1e-3][0]:g}, labels must be whole numbers; "
            "give the label map, not an image or a probability, resampled by nearest neighbour."
        )
    if whole.min() < 0 or whole.max() >= 2**31:
        raise ValueError(
            f"{path}: labels must lie in 0..2147483647, found {whole.min():.0f} to {whole.max():.0f}; renumber them."
        )
    if not whole.any():
        raise ValueError(f"{path}: all of it is background (0); give a label map with at least one labelled voxel.")
    return _tensor(whole.astype(np.int32), image)


def write_image(image: MetaTensor | Tensor, path: str | Path, grid: Grid | None = None) -> Path:
    """Write an image or a label map, whole or not at all; the suffix chooses the format.

    Floats are stored as float32, whole numbers as the smallest of uint8, int16 and int32 that holds them.

    Args:
        image: ``(1, *spatial)``.
        path: ``.nii.gz``, ``.nii``, ``.mha``, ``.nrrd``, or ``.png`` for a 2-D picture, which keeps no geometry.
        grid: where it lies; by default read from the image (a MetaTensor).

    Returns:
        ``path``.

    Raises:
        ValueError: for another suffix, an image that the format can't hold, or one that does not fit its grid.
        OSError: when it can't be written.
    """
    target = Path(path).expanduser()
    if target.name.lower().endswith(".mhd"):
        raise ValueError(f"{path}: an .mhd image is two files, which can't be written whole or not at all; write .mha.")
    suffix = _suffix(target, WRITTEN_IMAGES)
    place = grid or Grid.of(image)
    if tuple(image.shape) != (1, *place.shape):
        raise ValueError(f"{path}: an image on this grid has shape {(1, *place.shape)}, got {tuple(image.shape)}.")
    values = _storable(image.detach().cpu()[0], path)
    if suffix == ".png" and (place.dims != 2 or not np.array_equal(values, np.clip(np.rint(values), 0, 255))):
        raise ValueError(f"{path}: PNG holds 2-D images of whole numbers in 0..255 only; write .nii.gz.")
    stored = itk.image_from_array(np.ascontiguousarray(values.T, dtype=np.uint8 if suffix == ".png" else None))
    set_geometry(stored, place)

    with replacing(target) as partial:
        try:
            with _quiet():
                itk.imwrite(stored, str(partial), compression=True)
            _load_whole(str(partial))  # ITK writes half a NIfTI onto a full disk without a word
        except Exception as error:
            raise OSError(
                f"{path}: can't be written: {_reason(error)}; check the folder's rights and space."
            ) from error
    return target


def check_label_inside(label: Tensor, grid: Grid, source: str | Path) -> None:
    """Raise ValueError naming ``source`` when no labelled voxel of ``label (1, *spatial)`` lies inside ``grid``."""
    voxels = torch.as_tensor(label)[0].nonzero().cpu().numpy()
    if not _inside(Grid.of(label).to_world(voxels), grid).any():
        raise ValueError(
            f"{source}: lies off the image: none of its {len(voxels)} labelled voxels is inside; give the label of "
            "this image, with its origin, spacing and direction."
        )


def _open(path: Path, pixel: Any) -> Any:
    """The ITK image of ``path``, a file or a DICOM folder, once it is known to be whole, grey and of 2 or 3 axes."""
    if not path.exists():
        raise FileNotFoundError(f"no such image: {path}; check the path.")
    files = _series(path) if path.is_dir() else [str(path)]
    with _reading(path):
        header = itk.ImageIOFactory.CreateImageIO(files[0], itk.CommonEnums.IOFileMode_ReadMode)
        if header is None:
            raise ValueError("ITK knows no such format")
        header.SetFileName(files[0])
        header.ReadImageInformation()
    _check_header(header, path)
    with _reading(path):
        image_type = itk.Image[pixel, header.GetNumberOfDimensions()]
        if len(files) > 1:
            reader = itk.ImageSeriesReader[image_type].New(
                FileNames=files, ImageIO=header, ForceOrthogonalDirection=False
            )
        else:
            stored = _load_whole(files[0])
            reader = itk.ImageFileReader[image_type].New(FileName=files[0], ImageIO=header)
        reader.Update()
    image = reader.GetOutput()
    if len(files) > 1:
        _check_series(image, path)
    elif stored is not None and stored.dtype.kind == "f":
        check_finite(stored, path)  # ITK reads a NIfTI's NaN and infinity as 0
    return image


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever ITK, nibabel and Pillow raise into one line about ``path``."""
    try:
        with _quiet():
            yield
    except Exception as error:
        raise ValueError(
            f"{path}: can't be read as an image ({_reason(error)}); it is damaged, incomplete (an .mhd needs its data "
            "file beside it) or of another format: get it again, or convert it to .nii.gz."
        ) from error


def _check_header(header: Any, path: Path) -> None:
    size = tuple(header.GetDimensions(axis) for axis in range(header.GetNumberOfDimensions()))
    if len(size) not in (2, 3):
        raise ValueError(f"{path}: has {len(size)} axes {size}, expected 2 or 3; extract one time point or channel.")
    if header.GetNumberOfComponents() > 1:
        raise ValueError(
            f"{path}: has {header.GetNumberOfComponents()} values per voxel (colour, vector or complex), expected one; "
            "convert it to grey values or extract one component."
        )
    if sum(n > 1 for n in size) < 2:
        raise ValueError(f"{path}: has size {size}, fewer than two axes of 2 voxels or more; give a whole image.")


def _load_whole(file: str) -> NDArray | None:
    """Raise where ITK would fill up a file that ends early with whatever is in memory, or with grey.

    Returns:
        a NIfTI's voxels as stored, None for other formats.
    """
    name = file.lower()
    if name.endswith((".nii", ".nii.gz", ".hdr", ".img")):
        volume: Any = nib.load(file)
        return np.asanyarray(volume.dataobj.get_unscaled())
    if name.endswith((".png", ".jpg", ".jpeg")):
        with Image.open(file) as picture:
            picture.load()
    return None


def _series(folder: Path) -> list[str]:
    """Files of the one DICOM series in ``folder``, in order along the slice normal."""
    with _quiet():
        names = itk.GDCMSeriesFileNames.New(UseSeriesDetails=False, Directory=str(folder))
        series = {uid: list(names.GetFileNames(uid)) for uid in names.GetSeriesUIDs()}
    if not series:
        raise ValueError(f"{folder}: no DICOM series in this folder; give an image file, or the folder of the slices.")
    if len(series) > 1:
        found = ", ".join(f"{uid} ({len(files)} files)" for uid, files in series.items())
        raise ValueError(
            f"{folder}: holds {len(series)} DICOM series: {found}; put each in a folder of its own and give that one."
        )
    return next(iter(series.values()))


def _check_series(image: Any, path: Path) -> None:
    """Refuse the series for which ITK goes on with an even distance and right angles, so with slices out of place."""
    key = "ITK_non_uniform_sampling_deviation"
    properties = image.GetMetaDataDictionary()
    if properties.HasKey(key) and properties[key] > 0.1 * image.GetSpacing()[2]:
        raise ValueError(
            f"{path}: slices are not evenly spaced, one lies {properties[key]:.2f} mm off; look for a missing or "
            "doubled slice, or several acquisitions in one series."
        )
    direction = itk.array_from_matrix(image.GetDirection())
    normal = np.cross(direction[:, 0], direction[:, 1])
    if normal @ direction[:, 2] < np.cos(np.deg2rad(0.1)):
        raise ValueError(
            f"{path}: slices are not stacked at right angles (gantry tilt), which ITK can't express; correct the tilt, "
            "for instance with dcm2niix, and give the corrected volume."
        )
    direction[:, 2] = normal
    image.SetDirection(itk.matrix_from_array(direction))


def _values(image: Any) -> NDArray:
    """``(*spatial)`` in the order of the image's axes."""
    return np.ascontiguousarray(itk.array_view_from_image(image).T)


def _tensor(values: NDArray, image: Any) -> MetaTensor:
    return MetaTensor(torch.from_numpy(values[None]), affine=torch.from_numpy(grid_of_itk(image).affine))


def _storable(image: Tensor, source: str | Path) -> NDArray:
    values = image.float().numpy() if image.is_floating_point() else image.numpy()
    if values.dtype.kind == "f":
        return values
    low, high = int(values.min()), int(values.max())
    for kind in (np.uint8, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return values.astype(kind)
    raise ValueError(f"{source}: values {low} to {high} don't fit into 32 bits; write them as floats.")


def _inside(points: NDArray, grid: Grid) -> NDArray[np.bool_]:
    """Which of the RAS+ positions ``(N, D)`` lie in the image's extent, half a voxel beyond its outermost centres."""
    voxels = grid.to_voxel(points)
    inside: NDArray[np.bool_] = (voxels >= -0.5 - 1e-6) & (voxels <= np.array(grid.shape) - 0.5 + 1e-6)
    return np.all(inside, axis=1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what ITK's libraries print to the process's stderr, past Python; their failures are raised all the same."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _reason(error: Exception) -> str:
    """One line of an exception's text: of ITK's many the one that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = next((line for line in lines if line.startswith("ITK ERROR")), lines[-1])
    return re.sub(r"^ITK ERROR: (\w+\(0x\w+\): )?", "", said).rstrip(".")


def _suffix(path: Path, known: Sequence[str]) -> str:
    for suffix in known:
        if path.name.lower().endswith(suffix):
            return suffix
    raise ValueError(f"{path}: unknown suffix, expected one of {', '.join(known)}; rename or convert the file.")


# --- points ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Points:
    """Landmarks.

    Attributes:
        positions: ``(N, D)`` in RAS+ mm.
        names: one each.
    """

    positions: NDArray[np.float64]
    names: list[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", np.asarray(self.positions, dtype=np.float64))
        if self.positions.ndim != 2 or self.positions.shape[1] not in (2, 3):
            raise ValueError(f"positions must be (N, 2) or (N, 3), got {self.positions.shape}.")
        if len(self.names) != len(self.positions):
            raise ValueError(f"{len(self.positions)} points need as many names, got {len(self.names)}.")


def read_points(path: str | Path, dims: int) -> Points:
    """Read landmarks in mm.

    Args:
        path: CSV with the columns x, y[, z] and perhaps name or label, in LPS as ITK and ANTs have it; 3D Slicer's
            ``.mrk.json`` or ``.fcsv``, in the coordinate system it states; legacy ASCII VTK polydata, in LPS.
        dims: 2 or 3; for 2 a third coordinate must be 0.

    Returns:
        the points in the file's order; those without a name are numbered from 1.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: for another format, no point, coordinates that are not finite or do not suit ``dims``.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"no such file of points: {path}; check the path.")
    readers = dict(zip(READ_POINTS, (_read_csv, _read_markups, _read_fcsv, _read_vtk), strict=True))
    reader = readers[_suffix(file, READ_POINTS)]
    try:
        lps, names = reader(file.read_text(encoding="utf-8-sig"), dims)
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise ValueError(f"{path}: can't be read as points: {_reason(error)}.") from error
    if not len(lps):
        raise ValueError(f"{path}: holds no point; place at least one landmark.")
    if bad := [name for name, finite in zip(names, np.isfinite(lps).all(1), strict=True) if not finite]:
        raise ValueError(f"{path}: {len(bad)} of {len(lps)} points have no finite position, as {bad[0]!r}; fix them.")
    if lps.shape[1] > dims and not lps[:, dims:].any():
        lps = lps[:, :dims]
    if lps.shape[1] != dims:
        raise ValueError(f"{path}: points have {lps.shape[1]} coordinates, the images {dims}; give points that match.")
    return Points(flip_lps(lps), names)


def write_points(points: Points, path: str | Path) -> Path:
    """Write landmarks in LPS mm, whole or not at all.

    Args:
        points: to write.
        path: ``.csv`` with the columns x, y[, z], name, or ``.mrk.json`` of 3D Slicer, 3-D only.

    Returns:
        ``path``.

    Raises:
        ValueError: for another suffix or 2-D points as ``.mrk.json``.
    """
    target = Path(path).expanduser()
    suffix = _suffix(target, WRITTEN_POINTS)
    dims = points.positions.shape[1]
    lps = flip_lps(points.positions)
    if suffix == ".csv":
        table = pd.DataFrame(lps, columns=list("xyz")[:dims])
        table["name"] = points.names
        write_text(target, table.to_csv(index=False))
        return target
    if dims != 3:
        raise ValueError(f"{path}: .mrk.json holds 3-D points only; write .csv.")
    control = [
        {"id": str(number), "label": name, "position": position, "positionStatus": "defined"}
        for number, (name, position) in enumerate(zip(points.names, lps.tolist(), strict=True), 1)
    ]
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": control}
    write_text(target, json.dumps({"@schema": MARKUPS_SCHEMA, "markups": [markup]}, indent=2))
    return target


def check_points_inside(points: Points, grid: Grid, source: str | Path) -> None:
    """Raise ValueError naming ``source`` when any point lies more than half a voxel beyond the image's voxels."""
    outside = np.flatnonzero(~_inside(points.positions, grid))
    if len(outside):
        raise ValueError(
            f"{source}: {len(outside)} of {len(points.names)} points lie off the image, first "
            f"{points.names[outside[0]]!r}; give the points of this image, in mm and not in voxels, with the "
            "coordinate system (LPS or RAS) that the file says."
        )


def _read_csv(text: str, dims: int) -> tuple[NDArray[np.float64], list[str]]:
    rows = list(csv.DictReader(text.splitlines(), skipinitialspace=True))
    if not rows:
        return np.empty((0, dims)), []
    columns = {str(name).strip().lower(): name for name in rows[0]}
    if missing := {"x", "y"} - set(columns):
        raise ValueError(f"no column {' and '.join(sorted(missing))}, the header has {list(columns)}")
    axes = [columns[axis] for axis in "xyz" if axis in columns]
    label = columns.get("name", columns.get("label"))
    positions = [[float(row[axis] or "nan") for axis in axes] for row in rows]
    return np.array(positions), _named([row[label] if label else None for row in rows])


def _read_markups(text: str, dims: int) -> tuple[NDArray[np.float64], list[str]]:
    positions, names = [], []
    for markup in json.loads(text)["markups"]:
        for point in markup["controlPoints"]:
            names.append(point.get("label"))
            if point.get("positionStatus", "defined") != "defined":
                raise ValueError(f"point {names[-1]!r} is {point['positionStatus']}; place or delete it in 3D Slicer")
            positions.append(_to_lps(point["position"], markup.get("coordinateSystem", "LPS")))
    return np.array(positions, dtype=np.float64).reshape(-1, 3), _named(names)


def _read_fcsv(text: str, dims: int) -> tuple[NDArray[np.float64], list[str]]:
    head = [line[1:].partition("=") for line in text.splitlines() if line.startswith("#")]
    fields: Mapping[str, str] = {key.strip(): value.strip() for key, _, value in head}
    columns = fields.get("columns", "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label").split(",")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    rows = [dict(zip(columns, row, strict=False)) for row in csv.reader(lines)]
    system = fields.get("CoordinateSystem", "none")
    positions = [_to_lps([float(row[axis]) for axis in "xyz"], FCSV_SYSTEMS.get(system, system)) for row in rows]
    return np.array(positions).reshape(-1, 3), _named([row.get("label") for row in rows])


def _read_vtk(text: str, dims: int) -> tuple[NDArray[np.float64], list[str]]:
    lines = text.splitlines()
    if len(lines) < 4 or lines[2].strip().upper() != "ASCII":
        raise ValueError("not a legacy ASCII VTK file; save it as such")
    found = re.search(r"^\s*POINTS\s+(\d+)\s+\w+", text, re.MULTILINE)
    if found is None:
        raise ValueError("it has no POINTS")
    count = int(found[1])
    numbers = text[found.end() :].split()[: 3 * count]
    if len(numbers) < 3 * count:
        raise ValueError(f"{count} points announced, {len(numbers)} of their {3 * count} coordinates found")
    return np.array(numbers, dtype=np.float64).reshape(-1, 3), _named([None] * count)


def _to_lps(position: Sequence[float], system: str) -> NDArray[np.float64]:
    if system not in ("LPS", "RAS"):
        raise ValueError(f"coordinate system {system!r}, expected LPS or RAS; save it again in 3D Slicer")
    point = np.asarray(position, dtype=np.float64)
    if point.shape != (3,):
        raise ValueError(f"a position has {point.size} coordinates, expected 3")
    return flip_lps(point[None])[0] if system == "RAS" else point


def _named(names: Sequence[str | None]) -> list[str]:
    return [name.strip() if name and name.strip() else str(number) for number, name in enumerate(names, 1)]
