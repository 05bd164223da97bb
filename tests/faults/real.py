"""Whole inputs from real images: small files as they are, crops of large ones."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import itk
import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian

from fmirnet_monai.data import (
    read_image,
    read_label,
    write_image,
)

from .readers import READERS, Seed, one, written

LARGEST = 300_000  # bytes of a real file that is taken as it is


def real(source_dir: Path) -> list[Seed]:
    """Seeds from real images below a folder: small files as they are, crops of large ones by this package's writers."""
    found: list[Seed] = []
    files = sorted(path for path in source_dir.rglob("*") if path.is_file())
    readers = (
        ((".nii.gz",), "nifti.gz"),
        ((".mha",), "metaimage"),
        ((".png",), "png"),
        ((".dcm",), "dicom"),
        ((".vtk",), "text"),
    )
    taken: dict[tuple[str, str, str], int] = {}
    for path in files:
        form = next((form for suffixes, form in readers if path.name.lower().endswith(suffixes)), None)
        label = any(word in path.as_posix().lower() for word in ("label", "_gt", "ground"))
        what = "points" if form == "text" else "label" if label else "image"
        key = (path.relative_to(source_dir).parts[0], str(form), what)
        if form is None or taken.get(key, 0) >= 2:
            continue
        content = path.read_bytes() if path.stat().st_size < LARGEST and form != "dicom" else _cropped(path, what)
        name = path.name if form != "dicom" else f"crop_{path.stem.replace(',', '_')}.dcm"
        seeds = [] if content is None else one(f"real {key[0]}", name, content, form, what)
        if seeds and _reads(seeds[0]):  # some slices have no label
            found += seeds
            taken[key] = taken.get(key, 0) + 1
    found += _real_camus(source_dir)
    return found


def _reads(seed: Seed) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        seed.write(Path(folder))
        try:
            READERS[seed.reader](Path(folder) / seed.given)
        except ValueError:
            return False
    return True


def _cropped(path: Path, what: str) -> bytes | None:
    """A middle part of a real image in its own format."""
    if path.name.endswith(".dcm"):
        dataset = pydicom.dcmread(path)
        rows, columns = (slice(int(n) // 2 - 16, int(n) // 2 + 16) for n in (dataset.Rows, dataset.Columns))
        pixels = dataset.pixel_array[rows, columns]
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelData = pixels.tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made = io.BytesIO()
        dataset.save_as(made, enforce_file_format=True)
        return made.getvalue()
    if path.name.endswith((".nii.gz", ".mha")):
        image = (read_label if what == "label" else read_image)(path)
        cut = tuple(slice(n // 2 - min(n, 24) // 2, n // 2 + (min(n, 24) + 1) // 2) for n in image.shape[1:])
        part = image[(slice(None), *cut)]
        return written(lambda folder: write_image(part, folder / path.name))[path.name]
    return None


def _real_camus(source_dir: Path) -> list[Seed]:
    """A patient of CAMUS, cropped."""
    found: list[Seed] = []
    for patient in sorted({path.parent for path in source_dir.rglob("Info_2CH.cfg")})[:1]:
        files: dict[str, bytes] = {f"{patient.name}/Info_2CH.cfg": (patient / "Info_2CH.cfg").read_bytes()}
        for header in sorted(patient.glob("*_2CH_E[DS]*.mhd")):
            stored = itk.imread(str(header))
            values = np.squeeze(itk.array_from_image(stored))[200:248, 200:248]
            cropped = itk.image_from_array(np.ascontiguousarray(values))
            cropped.SetSpacing([float(stored.GetSpacing()[0]), float(stored.GetSpacing()[1])])
            made = written(lambda folder, c=cropped, n=header.name: itk.imwrite(c, str(folder / n)))
            files |= {f"{patient.name}/{name}": content for name, content in made.items()}
        found += [
            Seed("real camus", files, name, "text" if name.endswith(".mhd") else "bytes", "camus", ".")
            for name in files
            if not name.endswith(".cfg")
        ]
    return found
