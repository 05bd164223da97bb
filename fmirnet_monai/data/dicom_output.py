"""A registration as DICOM: the registered series, the map, and the labels, each read by whatever reads DICOM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmirnet_monai.spatial import Affine, DisplacementField, Grid, Map
from fmirnet_monai.spatial.dicom import DEFORMABLE, SPATIAL, decimals, grid_item, matrix_item, place
from fmirnet_monai.version import __version__

from .dicom_source import SOFTWARE, SourceSeries, code_item, new_object, series_number

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
ACQUIRED = 0x0018  # group of what describes the acquisition
OTHER = {  # of it, what is true of the moving images' own grid and device alone
    *("SliceThickness", "SpacingBetweenSlices", "GantryDetectorTilt", "ReconstructionDiameter", "TableHeight"),
    *("InPlanePhaseEncodingDirection", "AcquisitionMatrix", "PatientPosition", "DeviceSerialNumber"),
    *("SoftwareVersions", "DeviceUID", "GantryID"),
}
PIXELS = {  # what describes the stored numbers and how they are shown
    *("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleType", "PresentationLUTShape", "BurnedInAnnotation"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod", "AcquisitionNumber"),
    *("BodyPartExamined", "AnatomicRegionSequence", "ContrastBolusAgent"),
}
WINDOW = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction")
REQUIRED = {CT: {"KVP": "", "AcquisitionNumber": ""}}  # by an image, though it may not be known
REQUIRED[MR] = {"ScanningSequence": "RM", "SequenceVariant": "NONE", "ScanOptions": "", "MRAcquisitionType": ""}
REQUIRED[MR] |= {"RepetitionTime": "", "EchoTime": "", "EchoTrainLength": ""}


@dataclass(frozen=True, eq=False)
class DicomPair:
    """The series that a registration was made of.

    Attributes:
        moving: whose patient, study, pixel type and window the new objects get.
        fixed: whose frame of reference and geometry they get.
    """

    moving: SourceSeries
    fixed: SourceSeries

    @classmethod
    def read(cls, moving: str | Path, fixed: str | Path, labels: bool = False) -> DicomPair:
        """Read both and check that DICOM can be written of them.

        Args:
            moving: folder of a series, or a file of one slice.
            fixed: the same.
            labels: whether a label is to be written, too.

        Raises:
            ValueError: naming what can't be written of, and what to do.
            ModuleNotFoundError: for labels, where highdicom isn't installed.
        """
        pair = cls(SourceSeries.read(moving), SourceSeries.read(fixed))
        for side in (pair.moving, pair.fixed):
            side.check_identity()
        kinds = {str(part.SOPClassUID) for part in pair.moving.slices}
        if len(kinds) != 1 or kinds & {CT, MR} != kinds:
            raise ValueError(
                f"{moving}: --format dicom writes CT and MR images; its class is {', '.join(sorted(kinds))}, whose "
                "values depend on what a resampled series can't state; leave out --format."
            )
        if pair.moving.slices[0].get("ModalityLUTSequence"):
            raise ValueError(f"{moving}: its values come from a table (Modality LUT); leave out --format dicom.")
        _ = pair.moving.stored  # which refuses what it can't be
        if labels:
            import highdicom  # noqa: F401
        return pair

    def notes(self) -> list[str]:
        """What is to be told of the pair, a sentence each."""
        names = [str(side.slices[0].get("PatientID") or "") for side in (self.moving, self.fixed)]
        if names[0] == names[1]:
            return []
        return [
            f"The moving image's PatientID is {names[0]!r}, the fixed image's {names[1]!r}; what is written as DICOM "
            "belongs to the moving image's patient and study."
        ]

    def write_series(self, warped: Tensor, field: DisplacementField, moving_grid: Grid, folder: Path) -> list[Any]:
        """Write the registered series, ``00001.dcm`` and so on along the fixed image's normal.

        Args:
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
        common = self._common(grid)
        written = []
        for index, sources in enumerate(_sources(field, moving_grid)):
            image = deepcopy(common)
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = generate_uid(prefix=None)
            image.InstanceNumber = index + 1
            image.update(place(grid, index))
            image.SourceImageSequence = self.moving.references(sources)
            for item in image.SourceImageSequence:
                item.PurposeOfReferenceCodeSequence = [
                    code_item("121322", "Source image for image processing operation")
                ]
            image.PixelData = self._pixels(values[..., index].numpy())
            image["PixelData"].VR = "OW"
            image.save_as(folder / f"{index + 1:05d}.dcm", enforce_file_format=True)
            del image.PixelData
            written.append(image)
        return written

    def _common(self, grid: Grid) -> Any:
        """What all slices of the registered series have."""
        shared, kind = self.moving.shared, str(self.moving.slices[0].SOPClassUID)
        named = " ".join(f"{shared.get('SeriesDescription') or ''} registered".split())
        image = new_object(self.moving, kind, "CT" if kind == CT else "MR", named, 0)
        for element in shared:
            if (element.tag.group == ACQUIRED and element.keyword not in OTHER) or element.keyword in PIXELS:
                image.add(deepcopy(element))
        middle = self.moving.slices[len(self.moving.slices) // 2]
        for name in WINDOW:
            if middle.get(name) not in (None, ""):
                setattr(image, name, middle.get(name))
        for name, value in REQUIRED[kind].items():
            if name not in image:
                setattr(image, name, value)
        types = shared.get("ImageType") or []
        image.ImageType = [
            "DERIVED",
            "SECONDARY",
            *([types[2]] if len(types) > 2 else ["AXIAL" if kind == CT else "OTHER"]),
        ]
        image.DerivationDescription = f"Resampled onto the fixed series by a registration of {SOFTWARE} {__version__}"
        image.DerivationCodeSequence = [_derivation()]
        fixed, stored = self.fixed.slices[0], self.moving.stored
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

    def _pixels(self, values: NDArray[Any]) -> bytes:
        numbers = self.moving.stored.pack(np.ascontiguousarray(values.T))
        stored = numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()
        return stored + b"\0" * (len(stored) % 2)

    def write_transform(self, found: Map, file: Path) -> None:
        """Write a map as a Spatial Registration object where it is affine, else as a Deformable one.

        Args:
            found: affine, or a field on the fixed grid and what follows it.
            file: to write.
        """
        from pydicom.dataset import Dataset

        affine = isinstance(found, Affine)
        result = new_object(self.moving, SPATIAL if affine else DEFORMABLE, "REG", "Registration", 1)
        fixed = self.fixed.slices[0]
        result.FrameOfReferenceUID = fixed.FrameOfReferenceUID
        result.PositionReferenceIndicator = fixed.get("PositionReferenceIndicator") or ""
        result.ContentLabel, result.ContentDescription, result.ContentCreatorName = "REGISTRATION", SOFTWARE, ""
        items = []
        for side, through in ((self.fixed, Affine.identity(3)), (self.moving, found)):
            item = Dataset()
            item.ReferencedImageSequence = side.references()
            if affine:
                assert isinstance(through, Affine)
                item.FrameOfReferenceUID = side.slices[0].FrameOfReferenceUID
                item.MatrixRegistrationSequence = [_matrix_registration(through)]
            else:
                item.SourceFrameOfReferenceUID = side.slices[0].FrameOfReferenceUID
                item.update(_deformation(through))
            items.append(item)
        setattr(result, "RegistrationSequence" if affine else "DeformableRegistrationSequence", items)
        self._refer(result)
        result.save_as(file, enforce_file_format=True)

    def _refer(self, result: Any) -> None:
        """List the series that an object refers to, those of its own study and those of another."""
        from pydicom.dataset import Dataset

        own: list[Any] = []
        others: list[Any] = []
        for side in (self.fixed, self.moving):
            series = Dataset()
            series.SeriesInstanceUID = side.slices[0].SeriesInstanceUID
            series.ReferencedInstanceSequence = side.references()
            if any(item.SeriesInstanceUID == series.SeriesInstanceUID for item in own):
                continue
            if side.slices[0].StudyInstanceUID == result.StudyInstanceUID:
                own.append(series)
                continue
            study = Dataset()
            study.StudyInstanceUID, study.ReferencedSeriesSequence = side.slices[0].StudyInstanceUID, [series]
            others.append(study)
        if own:
            result.ReferencedSeriesSequence = own
        if others:
            result.StudiesContainingOtherReferencedInstancesSequence = others

    def write_label(self, label: Tensor, series: Sequence[Any], file: Path) -> None:
        """Write a label map as DICOM SEG that refers to the registered series, a segment for each label.

        Args:
            label: ``(1, *spatial)`` on the series' grid.
            series: as :py:meth:`write_series` gives it.
            file: to write.
        """
        import highdicom as hd
        from pydicom.sr.codedict import codes

        numbers = [int(n) for n in torch.as_tensor(label).unique() if n != 0]
        maker = hd.AlgorithmIdentificationSequence(SOFTWARE, codes.cid7162.DeformableModels, __version__)
        segments = [
            hd.seg.SegmentDescription(
                segment_number=index + 1,
                segment_label=f"Label {number}",
                segmented_property_category=codes.SCT.Tissue,
                segmented_property_type=codes.SCT.Tissue,
                algorithm_type="AUTOMATIC",
                algorithm_identification=maker,
                tracking_uid=hd.UID(),
                tracking_id=f"Label {number}",
            )
            for index, number in enumerate(numbers)
        ]
        volume = np.transpose(torch.as_tensor(label).cpu().numpy()[0], (2, 1, 0))
        order = np.searchsorted([0, *numbers], volume).astype(np.uint16 if len(numbers) > 255 else np.uint8)
        result = hd.seg.Segmentation(
            source_images=series,
            pixel_array=order,
            segmentation_type="BINARY",
            segment_descriptions=segments,
            series_instance_uid=hd.UID(),
            series_number=series_number(self.moving, 2),
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer=SOFTWARE,
            manufacturer_model_name=SOFTWARE,
            software_versions=__version__,
            device_serial_number="none",
            series_description="Labels, registered",
        )
        result.save_as(file, enforce_file_format=True)


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


def _matrix_registration(through: Affine) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.RegistrationTypeCodeSequence = [_method()]
    item.MatrixSequence = [matrix_item(through, inverse=True)]
    return item


def _deformation(through: Map) -> Any:
    """Nothing for what stays where it is; else a grid and the matrix after it."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.RegistrationTypeCodeSequence = [_method()]
    if isinstance(through, Affine):
        return item
    field, *rest = through.parts()
    assert isinstance(field, DisplacementField)
    item.PreDeformationMatrixRegistrationSequence = [matrix_item(Affine.identity(3))]
    after = rest[0] if rest else Affine.identity(3)
    assert isinstance(after, Affine) and len(rest) < 2
    item.PostDeformationMatrixRegistrationSequence = [matrix_item(after)]
    item.DeformableRegistrationGridSequence = [grid_item(field)]
    return item


def _method() -> Any:
    return code_item("125024", "Image Content-based Alignment")


def _derivation() -> Any:
    return code_item("113085", "Spatial resampling")
