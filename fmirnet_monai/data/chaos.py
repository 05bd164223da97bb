"""The CHAOS challenge data as downloaded: DICOM slices and one PNG mask a slice.

Kavur et al., "CHAOS Challenge - combined (CT-MR) healthy abdominal organ segmentation", Medical Image Analysis 2021.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image

from fmirnet_monai.spatial.dicom_elements import check_elements, is_dicom
from fmirnet_monai.spatial.headers import DEFLATED, SMALL, check_room
from fmirnet_monai.utils import reading

from .volume import Volume, check_finite, keep_label, natural_order, require_folder

# modality as the user names it: (folder above the case or of the sequence, sub-folder of DICOM_anon)
SEQUENCES = {
    "CT": ("CT", ""),
    "T2SPIR": ("T2SPIR", ""),
    "T1DUAL_in": ("T1DUAL", "InPhase"),
    "T1DUAL_out": ("T1DUAL", "OutPhase"),
}
# upper grey levels of the organs in an MR mask: background, liver, right kidney, left kidney, spleen
MR_MASK_EDGES = (35, 95, 158, 220)
DAMAGED = "download the set again"


def find_chaos_cases(source_dir: str | Path, modality: str = "CT") -> list[Path]:
    """Case folders (those that hold ``DICOM_anon`` and ``Ground``) anywhere below ``source_dir``.

    Args:
        source_dir: the unpacked archive, or any folder inside it down to one case.
        modality: ``"CT"``, ``"T2SPIR"``, ``"T1DUAL_in"`` or ``"T1DUAL_out"``.

    Returns:
        folders in natural order of the case number.

    Raises:
        FileNotFoundError: when the folder or a case of that modality does not exist.
        ValueError: for an unknown modality.
    """
    sequence, _ = _sequence(modality)
    folder = require_folder(source_dir, "source_dir").resolve()
    found = [path.parent for path in folder.rglob("DICOM_anon") if path.is_dir()]
    cases = {case for case in found if (case.parent if sequence == "CT" else case).name == sequence}
    if not cases:
        raise FileNotFoundError(
            f"source_dir: no {modality} case in {folder}; expected "
            f"{'Train_Sets/CT/<id>' if sequence == 'CT' else f'Train_Sets/MR/<id>/{sequence}'}/DICOM_anon below it."
        )
    return sorted(cases, key=lambda case: natural_order(case if sequence == "CT" else case.parent))


def read_chaos_case(case_dir: str | Path, modality: str = "CT", label_id: int | None = None) -> Volume:
    """Read one CHAOS case, with what is easily read wrong in this data set.

    - The k-th mask belongs to the k-th slice *by name*; both are then put in order of ``ImagePositionPatient``.
    - The slice distance comes from the positions; ``SliceThickness`` differs from it.
    - Intensities are rescaled to Hounsfield units by each slice's own slope and intercept.

    Args:
        case_dir: folder that holds ``DICOM_anon`` and, where there are labels, ``Ground``.
        modality: see :py:func:`find_chaos_cases`.
        label_id: the label to keep, as 1; None keeps all.

    Returns:
        the volume with slices from foot to head; label 1 is the liver (MR also 2 right kidney, 3 left kidney,
        4 spleen), None without a ``Ground`` folder.

    Raises:
        FileNotFoundError: without any DICOM slice.
        ValueError: when slices differ in size, leave a gap or are not finite, when masks don't match them in number or
            size, or hold no ``label_id``.
    """
    sequence, sub_folder = _sequence(modality)
    with reading(case_dir, f"can't be read ({{}}); {DAMAGED}."):
        return _read_case(Path(case_dir), modality, sequence, sub_folder, label_id)


def _read_case(case: Path, modality: str, sequence: str, sub_folder: str, label_id: int | None) -> Volume:
    dicom_dir = case / "DICOM_anon" / sub_folder
    files, slices = _read_slices(dicom_dir)
    masks = _read_masks(case / "Ground", files, sequence) if (case / "Ground").is_dir() else None

    first = slices[0]
    row, column = (np.asarray(first.ImageOrientationPatient[i : i + 3], dtype=float) for i in (0, 3))
    positions = np.array([s.ImagePositionPatient for s in slices], dtype=float)
    heights = positions @ np.cross(row, column)
    order = np.argsort(heights)
    steps = np.diff(heights[order])
    if len(slices) > 1 and (steps.min() <= 0 or np.ptp(steps) > 0.05 * np.median(steps)):
        gap = int(np.abs(steps - np.median(steps)).argmax())
        raise ValueError(
            f"{dicom_dir}: slices are not evenly spaced ({steps.min():.2f} to {steps.max():.2f} mm); look between "
            f"{files[order[gap]].name} and {files[order[gap + 1]].name} for a missing or doubled slice."
        )

    image = np.stack([_intensities(file, s) for file, s in zip(files, slices, strict=True)], -1)[..., order]
    check_finite(image, dicom_dir)

    lps = np.eye(4)
    lps[:3, 0] = row * float(first.PixelSpacing[1])
    lps[:3, 1] = column * float(first.PixelSpacing[0])
    lps[:3, 2] = (positions[order[-1]] - positions[order[0]]) / max(len(slices) - 1, 1)
    if len(slices) == 1:
        lps[:3, 2] = np.cross(row, column) * float(first.get("SliceThickness", 1))
    lps[:3, 3] = positions[order[0]]
    return Volume(
        subject=chaos_subject(case, modality),
        image=image.astype(np.float32),
        affine=np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps,
        label=None if masks is None else keep_label(masks[..., order], label_id, case / "Ground"),
    )


def chaos_subject(case_dir: str | Path, modality: str = "CT") -> str:
    """Name of a case's subject, such as ``chaos_ct_3``."""
    case = Path(case_dir)
    number = case.name if _sequence(modality)[0] == "CT" else case.parent.name
    return f"chaos_{modality.lower()}_{number}"


def _sequence(modality: str) -> tuple[str, str]:
    if modality not in SEQUENCES:
        raise ValueError(f"modality must be one of {list(SEQUENCES)}, got {modality!r}.")
    return SEQUENCES[modality]


def _intensities(file: Path, slice_: pydicom.Dataset) -> NDArray[np.floating]:
    """Rescaled pixels ``(X, Y)`` of one slice."""
    try:
        pixels = slice_.pixel_array
    except Exception as error:  # pydicom and its decoders raise whatever they like
        raise ValueError(f"{file}: its pixels can't be read ({error}); download the set again.") from error
    return pixels.T * float(slice_.get("RescaleSlope", 1)) + float(slice_.get("RescaleIntercept", 0))


def _read_slices(folder: Path) -> tuple[list[Path], list[pydicom.Dataset]]:
    require_folder(folder, "DICOM slices")
    files = sorted((p for p in folder.iterdir() if p.suffix.lower() in (".dcm", "")), key=natural_order)
    files = [p for p in files if p.is_file() and not p.name.startswith(".")]
    if not files:
        raise FileNotFoundError(f"{folder}: no DICOM slice (*.dcm) in this folder.")
    slices: list[pydicom.Dataset] = []
    for file in files:
        if not is_dicom(file):
            raise ValueError(f"{file}: not a DICOM file; remove it or download the set again.")
        with reading(file, f"can't be read as DICOM ({{}}); {DAMAGED}."):
            if not check_elements(file):
                raise ValueError("it holds no pixels")
            slices.append(pydicom.dcmread(file))
        for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"):
            if slices[-1].get(tag) in (None, ""):
                raise ValueError(f"{file}: has no {tag}, so the slice's place in space is unknown.")
        if slices[-1].Rows != slices[0].Rows or slices[-1].Columns != slices[0].Columns:
            raise ValueError(
                f"{file}: {slices[-1].Rows} x {slices[-1].Columns} pixels where {files[0].name} has "
                f"{slices[0].Rows} x {slices[0].Columns}; one series must have one size."
            )
    return files, slices


def _read_masks(folder: Path, files: list[Path], sequence: str) -> NDArray[np.uint8]:
    """Masks ``(X, Y, Z)`` in the order of ``files``."""
    paths = sorted(folder.glob("*.png"), key=natural_order)
    if len(paths) != len(files):
        raise ValueError(
            f"{folder}: {len(paths)} masks (*.png) for {len(files)} slices in {files[0].parent}; each slice needs "
            "its own mask, so one of the two folders is incomplete. Unpack the set again."
        )
    masks = []
    rows, columns = (pydicom.dcmread(files[0], stop_before_pixels=True)[tag].value for tag in ("Rows", "Columns"))
    for path in paths:
        with reading(path, f"can't be read as a mask ({{}}); {DAMAGED}."), Image.open(path) as picture:
            check_room(picture.size, 1, path, SMALL, DEFLATED)
            mask = np.asarray(picture)
        if mask.shape != (rows, columns):
            raise ValueError(f"{path}: mask of {mask.shape} pixels for slices of ({rows}, {columns}).")
        masks.append(mask.T)
    stack = np.stack(masks, -1)
    return (stack > 0).astype(np.uint8) if sequence == "CT" else np.digitize(stack, MR_MASK_EDGES).astype(np.uint8)
