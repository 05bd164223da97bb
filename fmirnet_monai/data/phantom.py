"""The generated sample: abdomen-like volumes written as DICOM and PNG in the layout of CHAOS CT.

No patient's data: ellipsoids with smooth, random shape and place, so that the whole way from raw DICOM to a trained
model runs without any download.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from fmirnet_monai.output import new_files

from .sliver import write_sliver_layout
from .volume import Volume

# centre and radii in mm (left, back, head), intensity in HU, exponent of the superellipsoid; later ones lie in front
ORGANS: dict[str, tuple[tuple[float, ...], tuple[float, ...], float, float]] = {
    "fat": ((0, 0, 0), (172, 122, 400), -100, 2.4),
    "muscle": ((0, 2, 0), (152, 104, 400), 55, 2.4),
    "cavity": ((0, -8, 0), (138, 84, 400), -60, 2.4),
    "bowel": ((15, -40, -45), (85, 38, 38), 30, 2.2),
    "stomach": ((52, -38, 22), (46, 32, 36), 20, 2.0),
    "liver": ((-58, -14, 10), (76, 64, 62), 105, 2.3),
    "spleen": ((92, 34, 18), (30, 38, 42), 120, 2.0),
    "right kidney": ((-58, 52, -34), (27, 30, 48), 175, 2.0),
    "left kidney": ((60, 54, -24), (27, 30, 48), 175, 2.0),
    "spine": ((0, 74, 0), (26, 24, 400), 320, 2.2),
    "spinal canal": ((0, 90, 0), (8, 7, 400), 40, 2.0),
    "aorta": ((14, 44, 0), (11, 11, 400), 190, 2.0),
    "vena cava": ((-16, 42, 0), (12, 10, 400), 150, 2.0),
    "portal vein": ((-52, -2, 12), (40, 7, 8), 165, 2.0),
}


def phantom_volume(
    subject: str, seed: int, shape: Sequence[int] = (192, 192, 40), spacing: Sequence[float] = (2.0, 2.0, 3.0)
) -> Volume:
    """One abdomen-like volume with liver (label 1), spleen, kidneys, spine and vessels.

    Args:
        subject: its name.
        seed: another seed gives another anatomy.
        shape: voxels along left, back and head.
        spacing: mm along the same axes.

    Returns:
        the volume in Hounsfield units, axes left, posterior, superior.
    """
    rng = np.random.default_rng(seed)
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"))
    points = points / rng.uniform(0.92, 1.08, 3)[:, None, None, None]
    for axis in range(3):  # a smooth deformation of up to about 8 mm, and a bend along the body
        for _ in range(4):
            wave = rng.normal(0, 1, 3) * 2 * np.pi / 260
            points[axis] += 4.0 * np.sin(np.tensordot(wave, points, 1) + rng.uniform(0, 2 * np.pi))
    image = np.full(shape, -1000.0)
    label = np.zeros(shape, dtype=np.uint8)
    for name, (centre, radii, intensity, exponent) in ORGANS.items():
        shift = rng.normal(0, 3.0, 3) if max(radii) < 200 else np.zeros(3)
        size = np.array(radii) * rng.uniform(0.9, 1.1, 3)
        relative = (points - (np.array(centre) + shift)[:, None, None, None]) / size[:, None, None, None]
        inside = (np.abs(relative) ** exponent).sum(0) < 1
        image[inside] = intensity + rng.normal(0, 6)
        if name in ("liver", "portal vein"):
            label[inside & ((label == 1) | (name == "liver"))] = 1
        else:
            label[inside] = 0
    image = gaussian_filter(image, [1.0 / s for s in spacing])
    texture = gaussian_filter(rng.normal(0, 1, shape), [2.0, 2.0, 0.8])
    image += 12.0 * texture / texture.std() * (image > -200) + rng.normal(0, 14.0, shape)
    return Volume(subject, np.clip(image, -1000, 1500), np.diag([-spacing[0], -spacing[1], spacing[2], 1.0]), label)


def write_chaos_layout(volume: Volume, case_dir: str | Path) -> None:
    """Write a volume in left-posterior-superior axes as CHAOS CT has it, with the same traps.

    Slices run from head to foot as the instance number rises, the rescale intercept is -1000, ``SliceThickness`` is
    larger than the slice distance, and masks are 1-bit PNG whose k-th file belongs to the k-th slice by name.
    """
    if volume.label is None:
        raise ValueError(f"subject {volume.subject}: the CHAOS layout needs a label.")
    dicom_dir, mask_dir = Path(case_dir) / "DICOM_anon", Path(case_dir) / "Ground"
    dicom_dir.mkdir(parents=True, exist_ok=True)
    mask_dir.mkdir(parents=True, exist_ok=True)
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    origin = np.diag([-1.0, -1.0, 1.0]) @ volume.affine[:3, 3]
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    depth = volume.image.shape[2]
    for number in range(depth):
        index = depth - 1 - number
        pixels = np.clip(np.rint(volume.image[..., index].T) + 1000, 0, 4095).astype(np.uint16)
        slice_ = pydicom.Dataset()
        slice_.file_meta = pydicom.dataset.FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.SOPClassUID = slice_.file_meta.MediaStorageSOPClassUID = CTImageStorage
        slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.FrameOfReferenceUID = study, series, frame
        slice_.Modality, slice_.PatientName, slice_.PatientID = "CT", f"PHANTOM^{volume.subject}", volume.subject
        slice_.StudyDate = slice_.StudyTime = slice_.AccessionNumber = slice_.StudyID = ""
        slice_.SeriesNumber, slice_.InstanceNumber = 1, number + 1
        slice_.ImagePositionPatient = [round(float(v), 4) for v in origin + np.array([0, 0, index * spacing[2]])]
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        slice_.SliceThickness = float(spacing[2]) * 1.6
        slice_.Rows, slice_.Columns = pixels.shape
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 0
        slice_.RescaleIntercept, slice_.RescaleSlope, slice_.RescaleType = -1000, 1, "HU"
        slice_.WindowCenter, slice_.WindowWidth = 50, 400
        slice_.PixelData = pixels.tobytes()
        slice_.save_as(dicom_dir / f"i{number:04d},0000b.dcm", enforce_file_format=True)
        Image.fromarray(volume.label[..., index].T > 0).save(mask_dir / f"liver_GT_{number:03d}.png")


def write_phantom(
    output_dir: str | Path,
    subjects: int = 8,
    shape: Sequence[int] = (192, 192, 40),
    spacing: Sequence[float] = (2.0, 2.0, 3.0),
    seed: int = 0,
    layout: str = "chaos",
) -> Path:
    """Write the generated sample, all or nothing, with a progress bar.

    Args:
        output_dir: folder to write.
        subjects: number of volumes.
        shape: voxels of each volume along left, back and head.
        spacing: mm along the same axes.
        seed: of the first volume.
        layout: ``"chaos"``, ``<output_dir>/Train_Sets/CT/<number>/…``, or ``"sliver"``, ``<output_dir>/liver-orig…``.

    Returns:
        ``output_dir``.
    """
    if subjects < 1 or len(shape) != 3 or len(spacing) != 3 or min(shape) < 1 or min(spacing) <= 0:
        raise ValueError(
            "subjects must be at least 1, shape and spacing three positive numbers (left, back, head), got "
            f"{subjects=}, {shape=}, {spacing=}."
        )
    if layout not in ("chaos", "sliver"):
        raise ValueError(f"layout must be chaos or sliver, got {layout!r}.")
    with new_files(output_dir) as folder:
        for number in tqdm(range(1, subjects + 1), desc="phantom volumes", unit="volume"):
            volume = phantom_volume(str(number), seed + number, shape, spacing)
            if layout == "chaos":
                write_chaos_layout(volume, folder / "Train_Sets" / "CT" / str(number))
            else:
                write_sliver_layout(volume, folder)
    return Path(output_dir)
