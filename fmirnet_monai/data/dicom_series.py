"""The registered series as DICOM: a derived series of the moving image's study, in the fixed image's place."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmirnet_monai.spatial import DisplacementField, Grid
from fmirnet_monai.spatial.dicom import decimals, place
from fmirnet_monai.version import __version__

from .dicom_pair import CT, MR, DicomPair
from .dicom_source import SOFTWARE, code_item, new_object

ACQUIRED = 0x0018  # group of what describes the acquisition
OTHER = {  # of it, what is true of the moving images' own grid and device alone
    *("SliceThickness", "SpacingBetweenSlices", "GantryDetectorTilt", "ReconstructionDiameter", "TableHeight"),
    *("InPlanePhaseEncodingDirection", "AcquisitionMatrix", "PatientPosition", "DeviceSerialNumber"),
    *("SoftwareVersions", "DeviceUID", "GantryID"),
}
KEPT = {  # of other groups: what the stored numbers are and how they are shown, and of what
    *("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleType", "PresentationLUTShape", "BurnedInAnnotation"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod", "AcquisitionNumber"),
    *("AnatomicRegionSequence", "RecognizableVisualFeatures"),
}
WINDOW = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction")
REQUIRED = {CT: {"KVP": "", "AcquisitionNumber": ""}}  # by an image, though it may not be known
REQUIRED[MR] = {"ScanningSequence": "RM", "SequenceVariant": "NONE", "ScanOptions": "", "MRAcquisitionType": ""}
REQUIRED[MR] |= {"RepetitionTime": "", "EchoTime": "", "EchoTrainLength": ""}


def write_dicom_series(
    pair: DicomPair, warped: Tensor, field: DisplacementField, moving_grid: Grid, folder: Path
) -> list[Any]:
    """Write the registered series, ``00001.dcm`` and so on along the fixed image's normal.

    Args:
        pair: whose fixed series the field lies on.
        warped: ``(1, *spatial)`` on the field's grid.
        field: the whole map.
        moving_grid: of the moving image.
        folder: made here.

    Returns:
        the datasets that were written, without their pixels.
    """
    from pydicom.uid import generate_uid

    folder.mkdir()
    values, grid = warped.detach().cpu()[0], field.grid
    common = _common(pair, grid)
    written = []
    for index, sources in enumerate(_sources(field, moving_grid)):
        image = deepcopy(common)
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = generate_uid(prefix=None)
        image.InstanceNumber = index + 1
        image.update(place(grid, index))
        image.SourceImageSequence = pair.moving.references(sources)
        for item in image.SourceImageSequence:
            item.PurposeOfReferenceCodeSequence = [code_item("121322", "Source image for image processing operation")]
        image.PixelData = _pixels(pair, values[..., index].numpy())
        image["PixelData"].VR = "OW"
        image.save_as(folder / f"{index + 1:05d}.dcm", enforce_file_format=True)
        del image.PixelData
        written.append(image)
    return written


def _common(pair: DicomPair, grid: Grid) -> Any:
    """What all slices of the registered series have."""
    shared, kind = pair.moving.shared, str(pair.moving.slices[0].SOPClassUID)
    named = " ".join(f"{shared.get('SeriesDescription') or ''} registered".split())
    image = new_object(pair.moving, kind, "CT" if kind == CT else "MR", named, 0)
    for element in shared:
        if (element.tag.group == ACQUIRED and element.keyword not in OTHER) or element.keyword in KEPT:
            image.add(deepcopy(element))
    middle = pair.moving.slices[len(pair.moving.slices) // 2]
    for name in WINDOW:
        if middle.get(name) not in (None, ""):
            setattr(image, name, middle.get(name))
    for name, value in REQUIRED[kind].items():
        if name not in image:
            setattr(image, name, value)
    types = shared.get("ImageType") or []
    image.ImageType = ["DERIVED", "SECONDARY", types[2] if len(types) > 2 else "AXIAL" if kind == CT else "OTHER"]
    image.DerivationDescription = f"Resampled onto the fixed series by a registration of {SOFTWARE} {__version__}"
    image.DerivationCodeSequence = [code_item("113085", "Spatial resampling")]
    fixed, stored = pair.fixed.slices[0], pair.moving.stored
    image.FrameOfReferenceUID = fixed.FrameOfReferenceUID
    image.PositionReferenceIndicator = fixed.get("PositionReferenceIndicator") or ""
    image.PatientPosition = fixed.get("PatientPosition") or ""
    image.SliceThickness = decimals([fixed.get("SliceThickness") or grid.spacing[2]])[0]
    if grid.shape[2] > 1:
        image.SpacingBetweenSlices = decimals([grid.spacing[2]])[0]
    image.PixelSpacing = decimals(grid.spacing[1::-1])
    image.Columns, image.Rows = grid.shape[:2]
    image.HighBit = image.BitsStored - 1
    if kind == CT or stored.scaled:
        image.RescaleSlope, image.RescaleIntercept = decimals([stored.slope, stored.inter])
        image.RescaleType = shared.get("RescaleType") or ("HU" if kind == CT else "US")
    return image


def _pixels(pair: DicomPair, values: NDArray[Any]) -> bytes:
    numbers = pair.moving.stored.pack(np.ascontiguousarray(values.T))
    stored = numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()
    return stored + b"\0" * (len(stored) % 2)


def _sources(field: DisplacementField, moving: Grid) -> list[range]:
    """Which of the moving slices each slice of a field's grid, along its last axis, is made of; at least one."""
    whole = np.linalg.inv(moving.affine) @ field.grid.affine
    row, last = torch.from_numpy(whole[2]), moving.shape[2] - 1
    found = []
    for index in range(field.grid.shape[2]):
        x, y = (torch.arange(n, dtype=torch.float64) for n in field.grid.shape[:2])
        ddf = field.ddf[..., index].cpu().double()
        height = torch.tensordot(row[:3], ddf, 1) + row[0] * x[:, None] + row[1] * y + (row[2] * index + row[3])
        low, high = (min(max(end, 0), last) for end in (math.floor(height.min()), math.ceil(height.max())))
        found.append(range(low, high + 1))
    return found
