"""SLIVER07 as downloaded: ``liver-origNNN.mhd/.raw`` and, for the training scans, ``liver-segNNN.mhd/.raw``.

Heimann et al., "Comparison and evaluation of methods for liver segmentation from CT datasets", TMI 2009.
"""

from __future__ import annotations

import re
from pathlib import Path

import itk
import numpy as np

from fmirnet_monai.spatial import Grid
from fmirnet_monai.spatial.geometry import set_geometry

from .folder import Case
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


def write_sliver_layout(volume: Volume, output_dir: str | Path) -> None:
    """Write a labelled volume, whose subject is a number, as SLIVER07 has it: two ``.mhd`` and two ``.raw`` files."""
    if volume.label is None:
        raise ValueError(f"subject {volume.subject}: the SLIVER layout needs a label.")
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    grid = Grid(volume.image.shape, np.asarray(volume.affine, dtype=np.float64))
    for kind, values in (("orig", np.rint(volume.image).astype(np.int16)), ("seg", volume.label.astype(np.uint8))):
        image = itk.image_from_array(np.ascontiguousarray(values.T))
        set_geometry(image, grid)
        itk.imwrite(image, str(Path(output_dir) / f"liver-{kind}{int(volume.subject):03d}.mhd"))
