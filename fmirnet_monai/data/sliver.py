"""SLIVER07 as downloaded: ``liver-origNNN.mhd/.raw`` and, for the training scans, ``liver-segNNN.mhd/.raw``.

Heimann et al., "Comparison and evaluation of methods for liver segmentation from CT datasets", TMI 2009.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import itk
import numpy as np
from tqdm import tqdm

from fmirnet_monai.spatial import Grid
from fmirnet_monai.spatial.itk import set_geometry

from .folder import Case
from .phantom import check_phantom, phantom_volume
from .volume import Volume, natural_order, require_folder


def find_sliver_cases(source_dir: str | Path, labelled: bool = True) -> list[Case]:
    """Scans anywhere below a folder with their labels, matched by number.

    Args:
        source_dir: the unpacked archives; images and labels may lie in different folders.
        labelled: leave out scans without a label, as those of the test set are.

    Returns:
        cases in the order of their numbers.

    Raises:
        FileNotFoundError: when the folder does not exist or holds no such scan.
        ValueError: when two scans have one number.
    """
    folder = require_folder(source_dir, "source_dir")
    files: dict[str, dict[str, Path]] = {"orig": {}, "seg": {}}
    for path in sorted(folder.rglob("liver-*.mhd"), key=natural_order):
        if match := re.fullmatch(r"liver-(orig|seg)(\d+)", path.stem):
            kind, number = match.groups()
            if number in files[kind]:
                raise ValueError(f"{files[kind][number]} and {path} both are liver-{kind}{number}; keep one of them.")
            files[kind][number] = path
    cases = [Case(f"sliver_{n}", path, files["seg"].get(n)) for n, path in files["orig"].items()]
    cases = [case for case in cases if case.label or not labelled]
    if not cases:
        wanted = "liver-origNNN.mhd with its liver-segNNN.mhd" if labelled else "liver-origNNN.mhd"
        raise FileNotFoundError(f"source_dir: no {wanted} below {folder}; give the unpacked SLIVER07 archives.")
    return cases


def write_sliver_layout(volume: Volume, output_dir: str | Path, number: int) -> None:
    """Write a labelled volume as SLIVER07 has it, two ``.mhd`` headers and two ``.raw`` files."""
    if volume.label is None:
        raise ValueError(f"subject {volume.subject}: the SLIVER layout needs a label.")
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    grid = Grid(volume.image.shape, np.asarray(volume.affine, dtype=np.float64))
    for kind, values in (("orig", np.rint(volume.image).astype(np.int16)), ("seg", volume.label.astype(np.uint8))):
        image = itk.image_from_array(np.ascontiguousarray(values.T))
        set_geometry(image, grid)
        itk.imwrite(image, str(Path(output_dir) / f"liver-{kind}{number:03d}.mhd"))


def write_sliver_phantom(
    output_dir: str | Path,
    subjects: int = 6,
    shape: Sequence[int] = (96, 96, 64),
    spacing: Sequence[float] = (4.0, 4.0, 4.0),
    seed: int = 0,
) -> Path:
    """Write generated abdomen-like volumes in SLIVER07's layout, with a progress bar.

    Args:
        output_dir: folder to write.
        subjects: number of volumes.
        shape: voxels of each along left, back and head.
        spacing: mm along the same axes.
        seed: of the first volume.

    Returns:
        ``output_dir``.
    """
    check_phantom(subjects, shape, spacing)
    folder = Path(output_dir).expanduser()
    for number in tqdm(range(1, subjects + 1), desc="phantom volumes", unit="volume"):
        write_sliver_layout(phantom_volume(f"sliver_{number}", seed + number, shape, spacing), folder, number)
    return folder
