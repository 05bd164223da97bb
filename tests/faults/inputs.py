"""Valid small input of every command that takes images, and the faults that may befall a file of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from commands import BUNDLES
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

QUICK = ["--refine", "0", "--report", "false", "--inverse", "false", "--metrics", "false"]


@dataclass(frozen=True)
class Task:
    """A command that would succeed, but for a fault.

    Attributes:
        words: of the command line after ``fmirnet_monai``.
        victim: file of its input that a fault befalls.
        output: folder, which is there beforehand, that gets its results.
        result: file that is there when it has succeeded.
        allowed: patterns in ``output`` of what it may write though a file is at fault, such as the other pairs.
        kept: patterns of what it writes to go on from, or to tell what failed.
    """

    words: list[str]
    victim: Path
    output: Path
    result: Path
    allowed: tuple[str, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    kept: tuple[str, ...] = ("summary.csv", "cases/*")


def texture(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    """Smooth random intensities in 0..200."""
    image = gaussian_filter(np.random.default_rng(seed).random(shape), 2.0)
    return (200 * (image - image.min()) / np.ptp(image)).astype(np.float32)


def write(path: Path, values: NDArray, origin: float = 0.0) -> Path:
    affine = np.diag([1.5, 1.5, 3.0, 1.0])
    affine[:3, 3] = origin
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def write_field(path: Path, values: NDArray) -> None:
    vectors = nib.Nifti1Image(values, np.diag([1.5, 1.5, 3.0, 1.0]))
    vectors.header.set_intent("vector")
    nib.save(vectors, path)


def blocks(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    label = np.zeros(shape, np.uint8)
    label[tuple(slice(n // 4, 3 * n // 4) for n in shape[:2])] = 1
    return label


def write_pair(folder: Path, seed: int = 0, labels: bool = False) -> dict[str, str]:
    """A 2-D pair."""
    image = texture((32, 28), seed)
    pair = {}
    for side, shift in (("moving", 0), ("fixed", 1)):
        pair[side] = str(write(folder / f"{side}_{seed}.nii.gz", np.roll(image, shift, 0)))
        if labels:
            pair[f"{side}_label"] = str(write(folder / f"{side}_label_{seed}.nii.gz", blocks(image.shape)))
    return pair


def write_list(folder: Path, count: int = 2) -> tuple[Path, Path]:
    """A datalist with so many pairs in each section, and the last pair's moving image."""
    pairs = [{**write_pair(folder, seed), "subject": f"s{seed}"} for seed in range(count)]
    datalist = folder / "datalist.json"
    datalist.write_text(json.dumps(dict.fromkeys(("training", "validation", "test"), pairs)))
    return datalist, Path(pairs[-1]["moving"])


def prepare(folder: Path) -> Task:
    for number in range(4):
        image = texture((24, 20, 6), number)
        write(folder / "in" / f"image_{number}.nii.gz", image)
        write(folder / "in" / f"label_{number}.nii.gz", blocks(image.shape))
    words = ["prepare", "folder", "--source_dir", str(folder / "in"), "--output_dir", str(folder / "out")]
    words += ["--min_label_area", "0", "--r", "0.5", "--fractions", "0.5,0.25,0.25"]
    return Task(words, folder / "in" / "image_2.nii.gz", folder / "out", folder / "out" / "datalist.json")


def prepare_pairs(folder: Path) -> Task:
    pairs = []
    for number in range(3):
        sides = {side: texture((24, 20, 6), number) for side in ("moving", "fixed")}
        pairs.append({side: str(write(folder / "in" / f"{side}_{number}.nii.gz", v)) for side, v in sides.items()})
    (folder / "in" / "table.json").write_text(json.dumps(pairs))
    words = ["prepare", "pairs", "--table", str(folder / "in" / "table.json"), "--output_dir", str(folder / "out")]
    words += ["--spatial_dims", "2", "--fractions", "1,0,0"]
    return Task(words, folder / "in" / "moving_1.nii.gz", folder / "out", folder / "out" / "datalist.json")


def register(folder: Path, labels: bool = False) -> Task:
    pair = write_pair(folder / "in", labels=labels)
    words = ["register", *(word for side, path in pair.items() for word in (f"--{side}", path))]
    words += ["--output_dir", str(folder / "out" / "pair"), *QUICK]
    return Task(words, Path(pair["moving"]), folder / "out", folder / "out" / "pair" / "metrics.json", given=pair)


def register_label(folder: Path) -> Task:
    task = register(folder, labels=True)
    return Task(task.words, Path(task.given["moving_label"]), task.output, task.result)


def register_points(folder: Path) -> Task:
    task = register(folder)
    for side in ("moving", "fixed"):
        (folder / "in" / f"{side}.csv").write_text("x,y\n-10,-12\n-20,-15\n-25,-20\n")
    points = [word for side in ("moving", "fixed") for word in (f"--{side}_points", str(folder / "in" / f"{side}.csv"))]
    return Task([*task.words, *points], folder / "in" / "moving.csv", task.output, task.result)


def batch(folder: Path) -> Task:
    datalist, victim = write_list(folder / "in")
    words = ["register", "--datalist", str(datalist), "--output_dir", str(folder / "out"), *QUICK]
    done = folder / "out" / "0001_moving_1_to_fixed_1" / "metrics.json"
    return Task(words, victim, folder / "out", done, ("0000_*/*", "summary.csv"))


def batch_list(folder: Path) -> Task:
    task = batch(folder)
    return Task(task.words, folder / "in" / "datalist.json", task.output, task.result)


def compare(folder: Path) -> Task:
    datalist, victim = write_list(folder / "in")
    words = ["compare", "--datalist", str(datalist), "--output_dir", str(folder / "out"), "--methods", "identity"]
    words += ["--pictures", "0"]
    return Task(
        words, victim, folder / "out", folder / "out" / "comparison.md", ("comparison.*", "cases/*", "warped/*")
    )


def compare_list(folder: Path) -> Task:
    task = compare(folder)
    return Task(task.words, folder / "in" / "datalist.json", task.output, task.result)


def propagate(folder: Path) -> Task:
    image = texture((24, 20, 5))
    label = blocks(image.shape)
    label[..., [1, 3]] = 0
    given = [write(folder / "in" / f"{name}.nii.gz", v) for name, v in (("image", image), ("label", label))]
    words = ["propagate", "--image", str(given[0]), "--label", str(given[1]), "--refine", "0"]
    words += ["--output", str(folder / "out" / "full.nii.gz")]
    return Task(words, given[0], folder / "out", folder / "out" / "full.nii.gz")


def propagate_label(folder: Path) -> Task:
    task = propagate(folder)
    return Task(task.words, folder / "in" / "label.nii.gz", task.output, task.result)


def warp(folder: Path) -> Task:
    shape = (32, 28)
    image = write(folder / "in" / "image.nii.gz", texture(shape))
    field_file = folder / "in" / "field.nii.gz"
    write_field(field_file, np.ones((*shape, 1, 1, 2), np.float32))
    words = ["warp", "--image", str(image), "--transform", str(field_file), "--output"]
    return Task([*words, str(folder / "out" / "warped.mha")], field_file, folder / "out", folder / "out" / "warped.mha")


def export(folder: Path) -> Task:
    """A bundle with a network that is small enough to export in a moment, of random weights."""
    bundle = folder / "in" / "small"
    shutil.copytree(BUNDLES / "fmirnet_chaos" / "configs", bundle / "configs")
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    config["network_def"]["channels"] = [4, 4]
    config["network_def"]["num_scales"] = 2
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))
    weights = bundle / "models" / "model.pt"
    weights.parent.mkdir()
    torch.manual_seed(0)
    from fmirnet_monai.bundle import read_config

    torch.save(read_config(bundle).get("network_def").state_dict(), weights)
    words = ["bundle", "export", str(bundle), "--output_dir", str(folder / "out")]
    return Task(words, weights, folder / "out", folder / "out" / f"small_v{version(bundle)}.zip")


def version(bundle: Path) -> str:
    return str(json.loads((bundle / "configs" / "metadata.json").read_text())["version"])


# --- faults ------------------------------------------------------------------------------------------------------


def changed(change: Callable[[NDArray], NDArray], origin: float = 0.0) -> Callable[[Path], object]:
    """A fault of an image's values."""
    return lambda file: write(file, change(np.asarray(nib.load(file).dataobj)), origin)


def with_value(value: float) -> Callable[[NDArray], NDArray]:
    def change(image: NDArray) -> NDArray:
        image = image.astype(np.float32)
        image[3, 3] = value
        return image

    return change


def vectors(change: Callable[[NDArray], NDArray]) -> Callable[[Path], object]:
    """A fault of a displacement field's vectors."""
    return lambda file: write_field(file, change(np.asarray(nib.load(file).dataobj)))


def colour(image: NDArray) -> NDArray:
    return np.zeros(image.shape if image.ndim == 3 else (*image.shape, 1), [(c, "u1") for c in "RGB"])


def huge(file: Path) -> None:
    """A header that speaks of 27 million million voxels."""
    header = nib.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header.set_data_dtype(np.float32)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    import gzip

    file.write_bytes(gzip.compress(header.binaryblock + bytes(4 + 4000)))


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


OF_FILES: dict[str, Callable[[Path], object]] = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "unreadable": lambda file: file.write_bytes(b"\x93neither this nor that\x00" * 40),
    "truncated": halve,
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}
OF_FIELDS: dict[str, Callable[[Path], object]] = {
    **OF_FILES,
    "type": lambda file: write(file, texture((32, 28))),
    "dimension": vectors(lambda values: np.repeat(values, 2, 2)),
    "NaN": vectors(with_value(np.nan)),
    "infinite": vectors(with_value(np.inf)),
}
OF_IMAGES: dict[str, Callable[[Path], object]] = {
    **OF_FILES,
    "type": changed(colour),
    "dimension": changed(lambda image: np.stack([np.atleast_3d(image)] * 2, -1)),
    "size": changed(lambda image: image[:, :1]),
    "NaN": changed(with_value(np.nan)),
    "infinite": changed(with_value(np.inf)),
    "constant": changed(lambda image: np.full_like(image, 7)),
    "huge": huge,
    "no overlap": changed(lambda image: image, origin=1e4),
}


@contextmanager
def fault(task: Task, befall: Callable[[Path], object]) -> Iterator[None]:
    """The victim at fault as long as the block lasts."""
    kept = task.victim.with_name(".kept")
    shutil.copyfile(task.victim, kept)
    befall(task.victim)
    try:
        yield
    finally:
        if task.victim.is_dir():
            task.victim.rmdir()
        os.replace(kept, task.victim)


def digests(folder: Path) -> dict[str, str]:
    """What lies in a folder, hidden files and empty folders too."""
    found = sorted(folder.rglob("*")) if folder.exists() else []
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in found
    }
