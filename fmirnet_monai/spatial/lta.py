"""Affine transforms of FreeSurfer (``.lta``): from the moving image (src) to the fixed one (dst), with both places."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .frames import Matrix, from_frames, numbers, small_text
from .grid import Grid
from .maps import Affine

VOXELS, RAS = 0, 1  # types: between voxels, between RAS mm
OTHER = "convert it: lta_convert --inlta IN.lta --outlta OUT.lta"
Lines = list[list[str]]


def read_lta(path: Path, *_: Grid | None) -> Affine:
    """One transform between voxels or between RAS mm as a map.

    Raises:
        ValueError: for another kind, several transforms, or a file that is damaged.
    """
    lines = [words for line in small_text(path).splitlines() if (words := line.split("#")[0].split())]
    kind, count = (int(_stated(lines, name)[0]) for name in ("type", "nxforms"))
    if count != 1 or kind not in (VOXELS, RAS):
        raise ValueError(f"it holds {count} transforms of type {kind}, one of type 0 or 1 is wanted; {OTHER}")
    begin = _find(lines, "1 4 4")
    matrix = numbers((word for row in lines[begin : begin + 4] for word in row), 16).reshape(4, 4)
    frames: list[Matrix] = [np.eye(4)] * 2
    if kind == VOXELS:
        frames = [np.asarray(np.linalg.inv(_place(lines, name).affine)) for name in ("src", "dst")]
    return from_frames(np.linalg.inv(matrix), *frames)


def _find(lines: Lines, wanted: str) -> int:
    """Number of the line behind the one of these words."""
    try:
        return lines.index(wanted.split()) + 1
    except ValueError as error:
        raise ValueError(f"it has no line {wanted!r}") from error


def _stated(lines: Lines, name: str) -> list[str]:
    found = next((words[2:] for words in lines if words[:2] == [name, "="]), [])
    if not found:
        raise ValueError(f"it states no {name!r}")
    return found


def _place(lines: Lines, name: str) -> Grid:
    begin = _find(lines, f"{name} volume info")
    block = lines[begin : begin + 8]
    if _stated(block, "valid")[0] != "1":
        raise ValueError(f"its {name} volume is not stated, and it is between voxels; {OTHER}")
    size, spacing, *axes, middle = (
        numbers(_stated(block, key), 3) for key in ("volume", "voxelsize", "xras", "yras", "zras", "cras")
    )
    affine = np.eye(4)
    affine[:3, :3] = np.transpose(axes) * spacing
    affine[:3, 3] = middle - affine[:3, :3] @ size / 2
    return Grid(tuple(int(n) for n in size), affine)


def lta_text(found: Affine, moving: Grid, fixed: Grid) -> str:
    """Text of an affine map, between RAS mm."""
    rows = [_numbers(row) for row in found.inverse().matrix]
    lines = [f"type      = {RAS} # LINEAR_RAS_TO_RAS", "nxforms   = 1", "mean      = 0 0 0", "sigma     = 1", "1 4 4"]
    return "\n".join([*lines, *rows, *_stating("src", moving), *_stating("dst", fixed)]) + "\n"


def _stating(name: str, grid: Grid) -> list[str]:
    axes = (grid.affine[:3, :3] / grid.spacing).T
    stated = {"voxelsize": grid.spacing, "xras  ": axes[0], "yras  ": axes[1], "zras  ": axes[2]}
    stated["cras  "] = grid.to_world(np.array(grid.shape) / 2)
    lines = [f"{name} volume info", "valid = 1  # volume info valid", "filename = unknown"]
    lines.append(f"volume = {' '.join(map(str, grid.shape))}")
    return [*lines, *(f"{key} = {_numbers(values)}" for key, values in stated.items())]


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.15e}" for value in values)
