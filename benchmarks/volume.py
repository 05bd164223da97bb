"""Time and peak memory of the command ``register`` on a generated volume with labels, as a user runs it.

::

    python benchmarks/volume.py 256 256 128 [--options "--inverse false"]

The fixed volume is the moving one, deformed by some voxels. 512 x 512 x 300 takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from fmirnet_monai.data import phantom_volume, write_image
from fmirnet_monai.spatial import DisplacementField, Grid, resample, resize_field, smooth


def write_pair(folder: Path, shape: tuple[int, ...]) -> dict[str, str]:
    """Both images and labels, by the option that takes them."""
    volume = phantom_volume("1", 3, shape, tuple(384 / n for n in shape[:2]) + (300 / shape[2],))
    affine = torch.from_numpy(np.asarray(volume.affine))
    grid = Grid(shape, affine.numpy())
    assert volume.label is not None
    image = MetaTensor(torch.from_numpy(volume.image.astype(np.float32))[None], affine=affine)
    label = MetaTensor(torch.from_numpy(volume.label.astype(np.uint8))[None], affine=affine)
    coarse = torch.randn(1, 3, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    field = DisplacementField(resize_field(smooth(coarse, 2.0) * 3, shape)[0], grid)
    files = {}
    for name, values, mode in (("", image, "bilinear"), ("_label", label, "nearest")):
        files[f"moving{name}"] = str(write_image(values, folder / f"moving{name}.nii.gz"))
        warped = resample(values, grid, field, mode=mode)[0]
        files[f"fixed{name}"] = str(write_image(warped, folder / f"fixed{name}.nii.gz", grid))
    return files


def main() -> None:
    """Print seconds and GiB."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", type=int, nargs=3)
    parser.add_argument("--options", default="", help="of register")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        files = write_pair(Path(temporary), tuple(options.shape))
        words = [word for name, path in files.items() for word in (f"--{name}", path)]
        command = [sys.executable, "-m", "fmirnet_monai", "register", *words, "--output_dir", f"{temporary}/out"]
        begin = time.perf_counter()
        subprocess.run([*command, *shlex.split(options.options)], check=True)
        seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{' x '.join(map(str, options.shape))}: {seconds:.0f} s, peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
