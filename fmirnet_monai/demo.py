"""A registration to look at without any data: a few generated slices, and the same ones deformed in a known way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from fmirnet_monai import data, workflow
from fmirnet_monai.data.phantom import phantom_volume
from fmirnet_monai.output import new_files
from fmirnet_monai.registration import Method, Registration
from fmirnet_monai.spatial import DisplacementField, Grid, resample

SHAPE, SPACING = (160, 120, 12), (2.25, 2.25, 8.0)
REACH = 15.0  # mm that the deformation moves at most along an axis
WAVES, LENGTH = 3, 130.0  # that it is made of, mm from crest to crest
POINTS = 24


def write_pair(folder: str | Path, seed: int = 0) -> dict[str, str]:
    """Write the pair: images, labels of the liver, and landmarks that lead to each other.

    Args:
        folder: to write.
        seed: another seed gives another anatomy and deformation.

    Returns:
        paths, as :py:func:`fmirnet_monai.workflow.register_files` takes them.

    Raises:
        OSError: when it can't be written.
    """
    volume = phantom_volume("demo", seed + 1, SHAPE, SPACING)
    moving, label = (
        MetaTensor(torch.from_numpy(np.asarray(array, np.float32))[None], affine=torch.from_numpy(volume.affine))
        for array in (volume.image, volume.label)
    )
    grid = Grid.of(moving)
    truth = _deformation(grid, seed)
    fixed, _ = resample(moving, grid, truth)
    fixed += 10.0 * torch.randn(fixed.shape, generator=torch.Generator().manual_seed(seed))
    fixed_label, _ = resample(label, grid, truth, mode="nearest")
    rng = np.random.default_rng(seed)
    places = rng.permutation(np.argwhere(np.asarray(fixed_label[0]) > 0))[:POINTS]
    points = torch.from_numpy(grid.to_world(places.astype(float)))
    files = {name: f"{folder}/{name}.nii.gz" for name in ("moving", "fixed", "moving_label", "fixed_label")}
    for name, image in zip(files, (moving, fixed, label, fixed_label), strict=True):
        data.write_image(image if name in ("moving", "fixed") else image.to(torch.uint8), files[name], grid)
    names = [str(number) for number in range(1, POINTS + 1)]
    for name, cloud in (("moving_points", truth(points)[0]), ("fixed_points", points)):
        files[name] = str(data.write_points(data.Points(cloud.numpy(), names), f"{folder}/{name}.csv"))
    return files


def run_demo(output_dir: str | Path, seed: int = 0) -> Registration:
    """Write the pair into ``input`` of a folder, register it, and write everything about it beside.

    Raises:
        OSError: when the folder can't be written.
    """
    inputs = Path(output_dir) / "input"
    with new_files(inputs) as folder:
        written = write_pair(folder, seed)
    files = {name: str(inputs / Path(file).name) for name, file in written.items()}  # and none that lay there before
    return workflow.register_files(files, output_dir, Method())


def _deformation(grid: Grid, seed: int) -> DisplacementField:
    """Waves within the slices."""
    rng = np.random.default_rng(seed)
    x, y, z = (grid.indices() * torch.from_numpy(grid.spacing)).movedim(-1, 0)
    ddf = torch.zeros(3, *grid.shape, dtype=torch.float64)
    for axis in range(2):
        for _ in range(WAVES):
            turn, phase = rng.uniform(0, 2 * np.pi, 2)
            along = np.cos(turn) * x + np.sin(turn) * y + 0.3 * z
            ddf[axis] += REACH / WAVES / grid.spacing[axis] * torch.sin(2 * np.pi * along / LENGTH + phase)
    return DisplacementField(ddf.float(), grid)
