"""Landmarks as a user hands them over: CSV, 3D Slicer's markups, VTK."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmirnet_monai.formats import READ_POINTS, WRITTEN_POINTS, known_suffix
from fmirnet_monai.spatial import Grid
from fmirnet_monai.spatial.itk import flip_lps
from fmirnet_monai.utils import reading, write_text

# an fcsv file's number of its coordinate system, as 3D Slicer 4 wrote it
FCSV_SYSTEMS = {"0": "RAS", "1": "LPS"}
MILLIMETRES = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3}
Read = tuple[NDArray[np.float64], Sequence[str | None]]  # LPS positions and the names as the file has them
MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


@dataclass(frozen=True, eq=False)
class Points:
    """Landmarks.

    Attributes:
        positions: ``(N, D)`` in RAS+ mm.
        names: one each.
        numbered: whether the names are but numbers, of points that had none.
    """

    positions: NDArray[np.float64]
    names: list[str]
    numbered: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", np.asarray(self.positions, dtype=np.float64))
        if self.positions.ndim != 2 or self.positions.shape[1] not in (2, 3):
            raise ValueError(f"positions must be (N, 2) or (N, 3), got {self.positions.shape}.")
        if len(self.names) != len(self.positions):
            raise ValueError(f"{len(self.positions)} points need as many names, got {len(self.names)}.")


def read_points(path: str | Path, dims: int) -> Points:
    """Read landmarks in mm.

    Args:
        path: CSV with the columns x, y[, z] and perhaps name or label, in LPS as ITK and ANTs have it, or 3D Slicer's
            table with the columns r, a, s or l, p, s; 3D Slicer's ``.mrk.json`` or ``.fcsv``, in the coordinate system
            and units that it states; legacy ASCII VTK polydata, in LPS unless its second line says ``SPACE=RAS``.
        dims: 2 or 3; for 2 a third coordinate must be 0.

    Returns:
        the points in the file's order; those without a name are numbered from 1.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: for another format, no point, coordinates that are not finite or do not suit ``dims``.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no such file of points: {path}; check the path.")
    readers = dict(zip(READ_POINTS, (_read_csv, _read_markups, _read_fcsv, _read_vtk), strict=True))
    reader = readers[known_suffix(file, READ_POINTS)]
    with reading(path, "can't be read as points: {}; save it again."):
        lps, given = reader(file.read_text(encoding="utf-8-sig"), dims)
        given = [None if name is None else str(name) for name in given]
    if not len(lps):
        raise ValueError(f"{path}: holds no point; place at least one landmark.")
    numbered = not any(name and name.strip() for name in given)
    names = [name.strip() if name and name.strip() else str(number) for number, name in enumerate(given, 1)]
    if bad := [name for name, finite in zip(names, np.isfinite(lps).all(1), strict=True) if not finite]:
        raise ValueError(f"{path}: {len(bad)} of {len(lps)} points have no finite position, as {bad[0]!r}; fix them.")
    if lps.shape[1] > dims and not lps[:, dims:].any():
        lps = lps[:, :dims]
    if lps.shape[1] != dims:
        raise ValueError(f"{path}: points have {lps.shape[1]} coordinates, the images {dims}; give points that match.")
    return Points(flip_lps(lps), names, numbered)


def paired(moving: Points, fixed: Points) -> Points:
    """The moving points in the order of the fixed ones: by name where both have names and share them, else as they are.

    Raises:
        ValueError: when they are not as many, or only some of their names are the same.
    """
    if len(moving.names) != len(fixed.names):
        raise ValueError(
            f"moving_points and fixed_points must hold the same points, got {len(moving.names)} and {len(fixed.names)}."
        )
    shared = set(moving.names) & set(fixed.names)
    if moving.numbered or fixed.numbered or not shared or moving.names == fixed.names:
        return moving
    for points, other, side in ((moving, fixed, "moving"), (fixed, moving, "fixed")):
        if twice := next((name for name in points.names if points.names.count(name) > 1), None):
            raise ValueError(f"{side}_points: {twice!r} is there twice; give each point a name of its own, or none.")
        if alone := next((name for name in points.names if name not in other.names), None):
            raise ValueError(
                f"{side}_points: {alone!r} is not among the points of the other image, though others are; name the "
                "same points alike in both."
            )
    order = [moving.names.index(name) for name in fixed.names]
    return Points(moving.positions[order], list(fixed.names))


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
    target = Path(path)
    suffix = known_suffix(target, WRITTEN_POINTS)
    dims = points.positions.shape[1]
    lps = flip_lps(points.positions)
    if suffix == ".csv":
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow([*"xyz"[:dims], "name"])
        writer.writerows([*position, name] for position, name in zip(lps.tolist(), points.names, strict=True))
        write_text(target, table.getvalue())
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
    outside = np.flatnonzero(~grid.contains(points.positions))
    if len(outside):
        raise ValueError(
            f"{source}: {len(outside)} of {len(points.names)} points lie off the image, first "
            f"{points.names[outside[0]]!r}; give the points of this image, in mm and not in voxels, with the "
            "coordinate system (LPS or RAS) that the file says."
        )


def _read_csv(text: str, dims: int) -> Read:
    rows = list(csv.DictReader(text.splitlines(), skipinitialspace=True))
    if not rows:
        return np.empty((0, dims)), []
    columns = {str(name).strip().lower(): name for name in rows[0]}
    letters = next((letters for letters in ("ras", "lps") if {*letters} <= {*columns}), "xyz")
    if missing := {*letters[:2]} - {*columns}:
        raise ValueError(f"no column {' and '.join(sorted(missing))}, the header has {list(columns)}")
    axes = [columns[axis] for axis in letters if axis in columns]
    label, defined = columns.get("name", columns.get("label")), columns.get("defined")
    names = [row[label] if label else None for row in rows]
    if defined and (unplaced := [number for number, row in enumerate(rows) if row[defined] != "1"]):
        raise ValueError(
            f"point {names[unplaced[0]] or unplaced[0] + 1!r} is not defined; place or delete it in 3D Slicer"
        )
    positions = np.array([[float(row[axis] or "nan") for axis in axes] for row in rows])
    return flip_lps(positions) if letters == "ras" else positions, names


def _read_markups(text: str, dims: int) -> Read:
    positions, names = [], []
    for markup in json.loads(text)["markups"]:
        unit = markup.get("coordinateUnits", "mm")
        unit = unit[0] if isinstance(unit, list) else unit  # a code, its scheme and its meaning
        if unit not in MILLIMETRES:
            raise ValueError(f"coordinateUnits {unit!r}, expected one of {', '.join(MILLIMETRES)}")
        for point in markup["controlPoints"]:
            names.append(point.get("label"))
            if point.get("positionStatus", "defined") != "defined":
                raise ValueError(f"point {names[-1]!r} is {point['positionStatus']}; place or delete it in 3D Slicer")
            position = _to_lps(point["position"], markup.get("coordinateSystem", "LPS"))
            positions.append(position * MILLIMETRES[unit])
    return np.array(positions, dtype=np.float64).reshape(-1, 3), names


def _read_fcsv(text: str, dims: int) -> Read:
    head = [line[1:].partition("=") for line in text.splitlines() if line.startswith("#")]
    fields: Mapping[str, str] = {key.strip(): value.strip() for key, _, value in head}
    columns = fields.get("columns", "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label").split(",")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    rows = [dict(zip(columns, row, strict=False)) for row in csv.reader(lines)]
    system = fields.get("CoordinateSystem", "none")
    positions = [_to_lps([float(row[axis]) for axis in "xyz"], FCSV_SYSTEMS.get(system, system)) for row in rows]
    return np.array(positions).reshape(-1, 3), [row.get("label") for row in rows]


def _read_vtk(text: str, dims: int) -> Read:
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
    positions = np.array(numbers, dtype=np.float64).reshape(-1, 3)
    space = re.search(r"\bSPACE=(\w+)", lines[1])  # as 3D Slicer notes it in the title
    system = space[1].upper() if space else "LPS"
    return np.array([_to_lps(position, system) for position in positions.tolist()]).reshape(-1, 3), [None] * count


def _to_lps(position: Sequence[float], system: str) -> NDArray[np.float64]:
    if system not in ("LPS", "RAS"):
        raise ValueError(f"coordinate system {system!r}, expected LPS or RAS; save it again in 3D Slicer")
    point = np.asarray(position, dtype=np.float64)
    if point.shape != (3,):
        raise ValueError(f"a position has {point.size} coordinates, expected 3")
    return flip_lps(point[None])[0] if system == "RAS" else point
