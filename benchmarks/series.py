"""What starting from the neighbour's map does: all frames of a series registered to one, from it and each alone.

Generated echocardiograms, whose ventricle is known in every frame, 4-D MRI states with landmarks, and cardiac pairs of
end-diastole and end-systole with labels, as series of two frames::

    python benchmarks/series.py [--clips 5] [--frames 16] [--states DATASET19] [--hearts ACDC --patients 12]
        [--ways neighbour alone mean] [--bundle none] [--seed 2000] [--smoothed 0.04]

Prints, for each kind and way, means over the series: of the frames' Dice of the label carried from the reference (of a
mean, from frame 0), and the lowest, or the target registration error in mm of its landmarks; similarity to the
reference, jitter in mm, folding.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw
from torch import Tensor

from fmirnet_monai.data import phantom_clip, read_image, read_label, read_points, read_sections
from fmirnet_monai.registration import Method, SeriesRegistration, register_series, series
from fmirnet_monai.registration.measure import field_metrics, label_metrics, point_metrics
from fmirnet_monai.registration.result import map_points
from fmirnet_monai.registration.series import likeness
from fmirnet_monai.spatial import Affine, Grid, resample
from fmirnet_monai.spatial.image import Image, on_grid

WAYS: dict[str, dict[str, Any]] = {
    "neighbour": {},
    "alone": {"neighbours": False},
    "mean": {"reference": "mean"},
}
STATES = ("exhMaster_unmasked.force_direction", "cyc_1_6.force_direction", "cyc_1_9.force_direction")
LANDMARKS = ("exhMaster", "cyc_1_6", "cyc_1_9")
DRIFT = (30.0, 0.2)  # degrees, and share of the image's width
Measured = Callable[[SeriesRegistration], dict[str, float]]
Case = tuple[list[Tensor], Any]


def clips(count: int, frames: int, seed: int) -> Iterator[Case]:
    """Generated clips and the Dice of the ventricle of the first frame."""
    for number in range(count):
        clip, traced = phantom_clip(seed + number, frames)
        images: list[Tensor] = [Image(torch.from_numpy(frame[None].astype(np.float32)), np.eye(3)) for frame in clip]
        labels = [
            Image(torch.from_numpy(ventricle(chords, frame.shape)[None]), np.eye(3))
            for chords, frame in zip(traced, clip, strict=True)
        ]
        yield images, labels


def drifting(cases: Sequence[Case]) -> Iterator[Case]:
    """The same clips with a probe that turns and slides over the whole of the clip, by DRIFT at its end."""
    for images, labels in cases:
        last = len(images) - 1
        yield (
            [moved(image, "bilinear", number / last) for number, image in enumerate(images)],
            [moved(label, "nearest", number / last) for number, label in enumerate(labels)],
        )


def moved(image: Tensor, mode: str, share: float) -> Tensor:
    """An image turned about its centre and shifted along its first axis by a share of DRIFT."""
    grid = Grid.of(image)
    centre, angle = (np.array(grid.shape) - 1) / 2, math.radians(share * DRIFT[0])
    matrix = np.eye(3)
    matrix[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    matrix[:2, 2] = centre - matrix[:2, :2] @ centre + [share * DRIFT[1] * grid.shape[0], 0]
    return on_grid(resample(image, grid, Affine(matrix), mode=mode)[0], grid)


def ventricle(traced: NDArray[np.floating], shape: Sequence[int]) -> NDArray[np.int32]:
    """Mask ``(X, Y)`` of the outline through the ends of the long axis and of the chords ``(1 + N, 4)``."""
    apex, base = traced[0, :2], traced[0, 2:]
    outline = [apex, *traced[1:, :2], base, *traced[:0:-1, 2:]]
    mask = Picture.new("L", (shape[0], shape[1]))
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in outline], fill=1)
    return np.asarray(mask, dtype=np.int32).T.copy()


def states(folder: Path) -> Iterator[Case]:
    """The breathing states of one subject and the error of the exhale master's landmarks."""
    images = [read_image(folder / f"{name}.mha", track_meta=False) for name in STATES]
    points = [read_points(folder / f"{name}LMliver.vtk", 3).positions for name in LANDMARKS]

    def measured(found: SeriesRegistration) -> dict[str, float]:
        errors = [
            point_metrics(map_points(found.between(0, number), points[0]), points[number])["tre_mean"]
            for number in range(1, len(points))
        ]
        return {"TRE (mm)": float(np.mean(errors)), "largest TRE (mm)": max(errors)}

    yield images, measured


def hearts(folder: Path, patients: int) -> Iterator[Case]:
    """End-diastole and end-systole of validation subjects, and the Dice of the labels of the first."""
    chosen = [name for name, section in read_sections("acdc").items() if section == "validation"]
    for name in chosen[:patients]:
        files = [str(folder / f"{name}_{phase}.nii.gz") for phase in ("ED", "ES")]
        images = [read_image(file, track_meta=False) for file in files]
        yield images, overlap([read_label(file.replace(".nii.gz", "_gt.nii.gz"), track_meta=False) for file in files])


def overlap(labels: Sequence[Tensor]) -> Measured:
    """Dice of the first frame's label carried to the others."""

    def measured(found: SeriesRegistration) -> dict[str, float]:
        grids = [Grid.of(label) for label in labels]
        carried = [
            on_grid(resample(labels[0], grids[number], found.between(number, 0), mode="nearest")[0], grids[number])
            for number in range(1, len(labels))
        ]
        dice = [label_metrics(one, other)["dice"] for one, other in zip(carried, labels[1:], strict=True)]
        return {"Dice": float(np.mean(dice)), "lowest Dice": min(dice)}

    return measured


def course(found: SeriesRegistration, frames: Sequence[Tensor]) -> dict[str, float]:
    """Similarity, jitter and folding of a series, means over the frames."""
    grid = Grid.of(found.reference)
    warped = [resample(frame, grid, through) for frame, through in zip(frames, found.maps, strict=True)]
    alike = [likeness(values, found.reference, inside) for values, inside in warped]
    shape = [field_metrics(through) for through in found.maps]
    others = [number for number in range(len(frames)) if number != found.index]
    means = {name: float(np.mean([shape[number][name] for number in others])) for name in shape[0]}
    return {"NCC": float(np.mean([alike[number] for number in others])), **found.jitter(), **means}


def main() -> None:
    """Print a line per kind and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=5)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--states", type=Path)
    parser.add_argument("--hearts", type=Path)
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    parser.add_argument("--bundle")
    parser.add_argument("--seed", type=int, default=2000)
    parser.add_argument("--smoothed", type=float, default=series.SMOOTHED)
    options = parser.parse_args()
    series.SMOOTHED = options.smoothed
    plain = [*clips(options.clips, options.frames, options.seed)]
    kinds: dict[str, list[Case]] = {
        name: [(images, overlap(labels)) for images, labels in cases]
        for name, cases in (("clips", plain), ("drifting clips", drifting(plain)))
    }
    if options.states:
        kinds["states"] = [*states(options.states)]
    if options.hearts:
        kinds["hearts"] = [*hearts(options.hearts, options.patients)]
    for kind, cases in ((kind, cases) for kind, cases in kinds.items() if cases):
        for way in options.ways:
            rows = []
            for frames, measured in cases:
                method = Method(options.bundle, progress=False, checks=False)
                found = register_series(frames, method.registrar(frames[1], frames[0]), **WAYS[way])
                rows.append({**measured(found), **course(found, frames)})
            means = {name: np.mean([row[name] for row in rows]) for name in rows[0]}
            said = ", ".join(f"{name} {value:.4f}" for name, value in means.items())
            print(f"{kind}, {way} (n = {len(rows)} of {len(cases[0][0])} frames): {said}", flush=True)


if __name__ == "__main__":
    main()
