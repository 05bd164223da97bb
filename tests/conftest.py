"""Fixtures shared by all tests: the real samples where they are there, and a small generated sample."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from fmirnet_monai.data import Pairing, find_chaos_cases, read_chaos_case, write_pairs, write_phantom
from fmirnet_monai.terms import tell_terms

SeriesWriter = Callable[..., list[Path]]
REPOSITORY = Path(__file__).parents[1]
REAL_DATA = Path(os.environ.get("FMIRNET_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(scope="session", autouse=True)
def _terms_were_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    """So that what a command says, also in a process of its own, does not depend on which one was the first."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    for weights in REPOSITORY.glob("bundles/*/models/model.pt"):
        tell_terms(weights)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real image samples; skips the test where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"the real image samples are not there: no folder {REAL_DATA} (set FMIRNET_DATA to it)")
    return REAL_DATA


@pytest.fixture(scope="session")
def raw_phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small generated volumes in the layout of CHAOS CT."""
    return write_phantom(
        tmp_path_factory.mktemp("phantom"), subjects=4, shape=(64, 56, 16), spacing=(6.0, 6.0, 8.0), seed=5
    )


@pytest.fixture(scope="session")
def small_sample(raw_phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the datalist of the small generated volumes: two subjects to train, one each for the rest."""
    folder = tmp_path_factory.mktemp("sample")
    volumes = map(read_chaos_case, find_chaos_cases(raw_phantom))
    write_pairs(volumes, folder, Pairing(r=0.3, fractions=(0.5, 0.25, 0.25)))
    return folder


@pytest.fixture(scope="session")
def joint_sample(raw_phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same volumes for joint training: every slice, and the whole volumes."""
    folder = tmp_path_factory.mktemp("joint_sample")
    pairing = Pairing(r=0.2, min_label_area=0.0, fractions=(0.5, 0.25, 0.25))
    write_pairs(map(read_chaos_case, find_chaos_cases(raw_phantom)), folder, pairing, keep_volumes=True)
    return folder


def _write_series(
    folder: Path,
    image: NDArray[np.integer],
    affine_lps: NDArray[np.floating],
    names: Sequence[str] | None = None,
    rescale: Sequence[tuple[float, float]] | None = None,
) -> list[Path]:
    """Write ``image (X, Y, Z)`` as one MR file a slice; ``names`` and ``rescale`` (slope, intercept) are per slice."""
    folder.mkdir(parents=True, exist_ok=True)
    spacing = np.linalg.norm(affine_lps[:3, :3], axis=0)
    row, column = (affine_lps[:3, i] / spacing[i] for i in (0, 1))
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    files = []
    for k in range(image.shape[2]):
        pixels = np.ascontiguousarray(image[..., k].T.astype(np.uint16))
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = MRImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.Modality, data.PatientName, data.PatientID = "MR", "NOBODY", "0"
        data.SeriesNumber, data.InstanceNumber = 1, k + 1
        position = affine_lps[:3, 3] + k * affine_lps[:3, 2]
        data.ImagePositionPatient = [f"{v:.6f}" for v in position]
        data.ImageOrientationPatient = [f"{v:.9f}" for v in (*row, *column)]
        data.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        data.SliceThickness = float(spacing[2]) / 3
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        if rescale is not None:
            data.RescaleSlope, data.RescaleIntercept = rescale[k]
        data.PixelData = pixels.tobytes()
        files.append(folder / (names[k] if names is not None else f"IMG-0001-{k + 1:05d}.dcm"))
        data.save_as(files[-1], enforce_file_format=True)
    return files


def change_tags(file: Path, **tags: object) -> None:
    """Set tags of a DICOM file, or remove those that are None."""
    dataset = pydicom.dcmread(file)
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(file)


@pytest.fixture
def write_series() -> SeriesWriter:
    """Writer of a DICOM series from an array and its LPS affine."""
    return _write_series
