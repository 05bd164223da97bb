"""Files by their suffixes, in capitals or not: the one list of the package."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

NIFTI = (".nii.gz", ".nii")
FREESURFER = (".mgz", ".mgh")
WRITTEN_VOLUMES = (*NIFTI, ".mha", ".nrrd")
WRITTEN_IMAGES = (*WRITTEN_VOLUMES, ".png")
PAIRS = {".hdr": ".img"}  # one image in two files that both have an image's suffix
IMAGES = (
    *(".seg.nrrd", *WRITTEN_IMAGES, ".mhd", ".nhdr", *PAIRS, *PAIRS.values()),
    *(*FREESURFER, ".dcm", ".gipl", ".gipl.gz", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"),
)
DICOM = (".dcm",)
HDF5 = (".h5", ".hdf5")
WRITTEN_TRANSFORMS = (".h5", ".tfm", ".txt", ".mat")
WRITTEN_FORMS = {  # whose transforms are written, as what
    "itk": (*WRITTEN_VOLUMES, *WRITTEN_TRANSFORMS),
    "fsl": (".mat", *NIFTI),
    "lta": (".lta",),
    "afni": (".1d", *NIFTI),
}
TRANSFORMS = (*HDF5, ".tfm", ".txt", ".mat", ".xfm", ".lta", ".1d")
READ_POINTS = (".csv", ".mrk.json", ".fcsv", ".vtk")
WRITTEN_POINTS = (".csv", ".mrk.json")


def form_of(path: str | Path, form: str | None = None) -> str:
    """Whose form a transform is written in: the one that is asked for, else the only one of its suffix, else ITK's.

    Raises:
        ValueError: for a form that isn't written.
    """
    if form is None:
        return next((name for name in ("lta", "afni") if suffix_of(path, WRITTEN_FORMS[name][:1])), "itk")
    if form not in WRITTEN_FORMS:
        raise ValueError(f"format must be one of {', '.join(WRITTEN_FORMS)}, got {form!r}.")
    return form


def suffix_of(path: str | Path, known: Sequence[str] = IMAGES) -> str:
    """The longest of ``known`` suffixes, such as ``.nii.gz``, that a file's name ends in, or ``""``."""
    name = Path(path).name.lower()
    return max((suffix for suffix in known if name.endswith(suffix)), key=len, default="")


def known_suffix(path: str | Path, known: Sequence[str]) -> str:
    """The same.

    Raises:
        ValueError: for any other.
    """
    if suffix := suffix_of(path, known):
        return suffix
    raise ValueError(f"{path}: unknown suffix, expected one of {', '.join(known)}; rename or convert the file.")


def stem(path: str | Path) -> str:
    """Name of an image file without its suffix; of another file or a folder, its name."""
    name = Path(path).name
    return name[: len(name) - len(suffix_of(name))]


def image_files(folder: Path, pattern: str) -> dict[str, Path]:
    """The images (or landmarks) in a folder by what the one ``*`` of a pattern stands for, without their suffix.

    Two files that are one image (``.hdr`` and ``.img``) are its header. A pattern that ends in a suffix takes what has
    it, in capitals or not; one that doesn't takes folders, of DICOM series, and files with a suffix of an image.

    Args:
        folder: to search.
        pattern: relative to it, with exactly one ``*``.

    Raises:
        ValueError: for two images of one name.
    """
    before, after = pattern.split("*")
    end = suffix_of(after, (*IMAGES, *READ_POINTS))
    begin = after[: len(after) - len(end)]
    any_case = "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in end)
    expression = re.compile(f"{re.escape(before)}(.*){re.escape(begin)}(?i:{re.escape(end)})")
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(f"{before}*{begin}{any_case}"), key=lambda path: str(path).lower()):
        match = expression.fullmatch(path.relative_to(folder).as_posix())
        if match is None or path.name.startswith(".") or not (end or path.is_dir() or suffix_of(path)):
            continue
        name = stem(match.group(1))
        if name in found and PAIRS.get(suffix_of(found[name])) == suffix_of(path):
            continue
        if name in found:
            raise ValueError(
                f"{found[name].name} and {path.name} in {folder} both stand for {name!r}; give a narrower pattern, "
                "such as one with the suffix."
            )
        found[name] = path
    return found
