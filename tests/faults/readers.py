"""Whole inputs, and the readers of the package as its commands call them."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fmirnet_monai.bundle import load_weights, read_config
from fmirnet_monai.data import (
    find_camus_cases,
    find_chaos_cases,
    find_echonet_cases,
    find_sliver_cases,
    load_pairs,
    load_volumes,
    read_case_table,
    read_chaos_case,
    read_clip,
    read_echo_case,
    read_folder_case,
    read_image,
    read_label,
    read_pair_table,
    read_points,
    read_sections,
)
from fmirnet_monai.data.datalist import check_sections, merge_datalists
from fmirnet_monai.data.download import unpack
from fmirnet_monai.spatial import Grid
from fmirnet_monai.spatial.itk import read_transform
from fmirnet_monai.study.methods import parse_methods
from fmirnet_monai.study.study import Study
from fmirnet_monai.transforms import ReadImaged


@dataclass(frozen=True)
class Seed:
    """A whole input of one reader.

    Attributes:
        kind: row of the table that it counts in.
        files: what they hold, by their name below a folder.
        target: the one to damage.
        form: of it, see :py:data:`mutation.FORMS`.
        reader: of :py:data:`READERS`.
        given: what the reader is given, below that folder.
    """

    kind: str
    files: Mapping[str, bytes]
    target: str
    form: str
    reader: str
    given: str

    @property
    def plain_bytes(self) -> int:
        """Size of all its files, of compressed ones that of their content."""
        return sum(unpacked(content) for content in self.files.values())

    def write(self, folder: Path) -> None:
        """Put all files into a folder."""
        for name, content in self.files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def unpacked(content: bytes) -> int:
    """Size of a file's content; of one that is not compressed, or damaged, its own."""
    try:
        return len(gzip.decompress(content))
    except Exception:
        return len(content)


def _all_echo_cases(folder: Path) -> None:
    for case in find_echonet_cases(folder)[0]:
        read_echo_case(case)


def _datalist(path: Path) -> None:
    load_pairs(path, "training")
    load_volumes(path, "training", labelled=False)
    check_sections(path, {"1": "training"})
    merged = path.with_name("merged.json")
    merged.unlink(missing_ok=True)
    merge_datalists([path], merged, names=["a"])


def _trained(path: Path) -> None:
    load_weights(torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4)), path)


PLACE = Grid((6, 5, 4), np.diag([-2.0, -2.0, 3.0, 1.0]))  # of both images of a transform
READERS: dict[str, Callable[[Path], object]] = {
    "image": lambda path: read_image(path, track_meta=False),
    "label": lambda path: read_label(path, track_meta=False),
    "training image": lambda path: ReadImaged(["image"])({"image": str(path)}),
    "transform": read_transform,
    "transform of images": lambda path: read_transform(path, PLACE, PLACE),
    "points": lambda path: read_points(path, 3),
    "clip": read_clip,
    "echonet": _all_echo_cases,
    "camus": lambda folder: [read_echo_case(case) for case in find_camus_cases(folder)[0]],
    "chaos": lambda folder: [read_chaos_case(case) for case in find_chaos_cases(folder)],
    "sliver": lambda folder: [read_folder_case(case) for case in find_sliver_cases(folder)],
    "case table": read_case_table,
    "pair table": read_pair_table,
    "sections": read_sections,
    "datalist": _datalist,
    "weights": _trained,
    "tuned": lambda path: parse_methods(["elastix"], path),
    "study": Study.read,
    "bundle": lambda folder: read_config(folder, variant="small").get("spatial_size"),
    "archive": lambda path: unpack(path, path.parent / "unpacked"),
}


def read_files(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()
    }


def written(write: Callable[[Path], object]) -> dict[str, bytes]:
    """What ``write`` puts into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return read_files(Path(folder))


def one(kind: str, name: str, content: bytes, form: str, *readers: str) -> list[Seed]:
    return [Seed(kind, {name: content}, name, form, reader, name) for reader in readers]


def by_writer(kind: str, name: str, write: Callable[[Path], object], form: str, *readers: str) -> list[Seed]:
    return one(kind, name, written(lambda folder: write(folder / name))[name], form, *readers)
