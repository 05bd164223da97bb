"""Write a studies folder of generated abdomens, half of them labelled: ``python sample.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from fmirnet_monai.data import phantom_volume

SHAPE, SPACING = (128, 112, 24), (3.0, 3.0, 6.0)


def write_studies(folder: Path, subjects: int = 4, labelled: int = 2) -> list[str]:
    """Images ``NAME.nii.gz`` and, of the first, liver labels in ``labels/final``; files that are there already stay.

    Returns:
        names of the studies.
    """
    names = [f"phantom_{number + 1}" for number in range(subjects)]
    final = folder / "labels" / "final"
    final.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        volume = phantom_volume(name, number, SHAPE, SPACING)
        assert volume.label is not None
        files = {folder / f"{name}.nii.gz": volume.image.astype(np.int16)}
        if number < labelled:
            files[final / f"{name}.nii.gz"] = volume.label.astype(np.uint8)
        for file, values in files.items():
            if not file.exists():
                nib.save(nib.Nifti1Image(values, volume.affine), file)
    return names


if __name__ == "__main__":
    print(*write_studies(Path(sys.argv[1])))
