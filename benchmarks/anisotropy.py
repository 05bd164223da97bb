"""How steps and smoothing should count along thick slices: known deformations of real volumes, found again.

Volumes are brought to voxels of equal sides, deformed by a smooth random map, in plane only or in all directions, then
their slices are averaged to 1, 2 and 4 times their thickness. Prints the root mean square error of direct optimisation
within the body, in plane and across slices, for each scheme::

    python benchmarks/anisotropy.py DATALIST [--section validation] [--count 3]

DATALIST: of volumes, as ``prepare folder --spatial_dims 3`` writes it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fmirnet_monai.data import load_pairs, read_image
from fmirnet_monai.registration import DenseOptimizer
from fmirnet_monai.registration.method import CT_WINDOW
from fmirnet_monai.registration.optimise import Level
from fmirnet_monai.spatial import Grid, resample, resize, smooth, warp

SIZE = 80  # voxels along the longest side
LENGTH = 8.0  # mm, root mean square of the deformation


class ByMm(DenseOptimizer):
    """Smoothing counts in mm: less of it along axes of large voxels."""

    def sigmas(self, level: Level, sigma: float) -> list[float]:
        """Along each axis, in its voxels."""
        return [sigma * share for share in level.scale.flatten().tolist()]


def deformation(shape: tuple[int, ...], spacing: float, in_plane: bool, seed: int) -> Tensor:
    """``(1, 3, *shape)`` in voxels."""
    noise = torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(seed))
    if in_plane:
        noise[:, 2] = 0
    field = smooth(noise, 7.0)
    return field * (LENGTH / spacing / field.square().sum(1).mean().sqrt())


def main() -> None:
    """Print a line per thickness, truth and scheme."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datalist", type=Path)
    parser.add_argument("--section", default="validation")
    parser.add_argument("--count", type=int, default=3)
    options = parser.parse_args()
    files = dict.fromkeys(pair["fixed"] for pair in load_pairs(options.datalist, options.section))
    cases = []
    for file in list(files)[: options.count]:
        image = read_image(file)
        grid = Grid.of(image).with_longest_side(SIZE)
        values = resample(image, grid, antialias=True)[0]
        low, high = CT_WINDOW
        cases.append((((values - low) / (high - low)).clamp(0, 1)[None], float(grid.spacing.mean())))
    print(f"{len(cases)} volumes of section {options.section}, {SIZE} voxels, deformation {LENGTH} mm (rms)")
    schemes = [(kind, power) for kind in (DenseOptimizer, ByMm) for power in (0, 1, 2)]
    for factor in (1, 2, 4):
        for in_plane in (True, False):
            for kind, power in schemes[:1] if factor == 1 else schemes:
                errors = []
                for seed, (image, spacing) in enumerate(cases):
                    truth = deformation(image.shape[2:], spacing, in_plane, seed)
                    size = [*image.shape[2:4], image.shape[4] // factor]
                    noise = [
                        0.02 * torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(k)) for k in (1, 2)
                    ]
                    moving, fixed = resize(image, size) + noise[0], resize(warp(image, truth), size) + noise[1]
                    optimizer = kind("auto")
                    optimizer.power = power
                    ddf = optimizer(moving, fixed, spacing=[1.0, 1.0, float(factor)])
                    voxel = torch.tensor([1.0, 1.0, image.shape[4] / size[2]]).reshape(1, 3, 1, 1, 1)
                    miss = (ddf * voxel - resize(truth, size))[0] * spacing
                    body = smooth(fixed, 2.0)[0, 0] > 0.1
                    errors.append([float(miss[:2].square().sum(0)[body].mean()), float(miss[2].square()[body].mean())])
                plane, across = np.sqrt(np.mean(errors, axis=0))
                where = "in plane" if in_plane else "everywhere"
                print(
                    f"slices {factor} x, truth {where}, gradient by mm^{power}, "
                    f"smoothing by {'mm' if kind is ByMm else 'voxel'}: {plane:.2f} mm in plane, {across:.2f} across, "
                    f"{np.hypot(plane, across):.2f} in all",
                    flush=True,
                )


if __name__ == "__main__":
    main()
