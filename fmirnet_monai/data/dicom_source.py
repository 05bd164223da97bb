"""The DICOM series that a registration is made of, and what is handed on from it to the objects that are written."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fmirnet_monai.spatial.dicom_elements import check_elements, is_dicom
from fmirnet_monai.utils import reading
from fmirnet_monai.version import __version__

from .dicom import series_files, slices_of, stacked
from .stored import Stored

SOFTWARE = "fmirnet_monai"
IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
KEPT = {  # besides all of the groups of patient and trial
    *("SpecificCharacterSet", "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "AccessionNumber"),
    *("ReferringPhysicianName", "StudyDescription", "PhysiciansOfRecord", "AdmittingDiagnosesDescription"),
}
REQUIRED = (  # though they may be empty
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber"),
    *("ReferringPhysicianName", "StudyID", "Laterality"),
)
SCANNER = ("Manufacturer", "ManufacturerModelName", "InstitutionName", "StationName", "DeviceSerialNumber")


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """Slices of a series, without their pixels, in the order of the grid that they make.

    Attributes:
        path: folder or file that they were read from.
        slices: datasets of pydicom.
    """

    path: Path
    slices: Sequence[Any]

    @classmethod
    def read(cls, path: str | Path) -> SourceSeries:
        """Read a folder of slices, or one file.

        Raises:
            ValueError: naming it, when it can't be read.
        """
        import pydicom

        source = Path(path)
        with reading(source, "can't be read as a DICOM series ({}); get it again."):
            files = series_files(source) if source.is_dir() else [str(source)]
            if len(files) > 1:
                order, _ = stacked(slices_of(files), source)
                files = [files[i] for i in order]
            slices = []
            for file in files:
                check_elements(Path(file))
                slices.append(pydicom.dcmread(file, stop_before_pixels=True))
        return cls(source, slices)

    @classmethod
    def to_refer_to(cls, path: str | Path) -> SourceSeries:
        """The same of a series that DICOM objects are to refer to.

        Raises:
            ValueError: naming it, when it is none, has several frames in a file, or lacks what identifies it.
        """
        source = Path(path)
        if source.is_file() and not is_dicom(source):
            raise ValueError(
                f"{path}: is no DICOM; with --format dicom the moving and the fixed image are DICOM series: give one, "
                "or leave out --format."
            )
        series = cls.read(source)
        series._check_identity()
        return series

    def _check_identity(self) -> None:
        if any(int(part.get("NumberOfFrames") or 1) > 1 for part in self.slices):
            raise ValueError(
                f"{self.path}: holds several frames; with --format dicom give series of one file a slice, to which "
                "emf2sf of dcm4che converts it."
            )
        for name in IDENTITY:
            if not all(part.get(name) for part in self.slices):
                raise ValueError(f"{self.path}: has no {name}, which DICOM output refers to; leave out --format dicom.")

    @cached_property
    def shared(self) -> Any:
        """What all slices say alike, private elements left out."""
        from pydicom.dataset import Dataset

        first, *others = self.slices
        result = Dataset()
        for element in first:
            if all(element.tag in o and o[element.tag] == element for o in others):
                result.add(deepcopy(element))
        result.remove_private_tags()
        return result

    @cached_property
    def stored(self) -> Stored:
        """How its pixels store their values; where slices are scaled differently, by one scale that holds them all."""
        parts = [_stored(part, self.path) for part in self.slices]
        shown = {str(part.get("PhotometricInterpretation")) for part in self.slices}
        if len({(part.kind, part.bits) for part in parts}) > 1 or len(shown) > 1:
            raise ValueError(
                f"{self.path}: its slices store their pixels in different types; leave out --dtype, --format."
            )
        first = parts[0]
        if all((part.slope, part.inter) == (first.slope, first.inter) for part in parts):
            return first
        ends = [part.slope * limit + part.inter for part in parts for limit in part.limits]
        low, high = first.limits
        slope = (max(ends) - min(ends)) / (high - low)
        return Stored(first.kind, slope, min(ends) - slope * low, first.bits)

    def references(self, indices: Sequence[int] | None = None) -> list[Any]:
        """Items that refer to its slices, or to some of them."""
        from pydicom.dataset import Dataset

        items = []
        for part in self.slices if indices is None else [self.slices[i] for i in indices]:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = part.SOPClassUID, part.SOPInstanceUID
            items.append(item)
        return items


def _stored(part: Any, path: Path) -> Stored:
    allocated, bits = int(part.BitsAllocated), int(part.BitsStored)
    if allocated not in (8, 16, 32) or not 1 < bits <= allocated:
        raise ValueError(f"{path}: its pixels take {bits} of {allocated} bits; leave out --dtype and --format.")
    kind = np.dtype(f"{'i' if int(part.PixelRepresentation) else 'u'}{allocated // 8}")
    holder = _transformation(part)
    slope, inter = (float(holder.get(f"Rescale{name}") or value) for name, value in (("Slope", 1), ("Intercept", 0)))
    return Stored(kind, slope, inter, bits)


def _transformation(part: Any) -> Any:
    """What states the rescale of a file: itself, or that of its frames, which ITK reads by one of theirs."""
    groups = [
        *(part.get("SharedFunctionalGroupsSequence") or []),
        *(part.get("PerFrameFunctionalGroupsSequence") or []),
    ]
    items = [item for group in groups for item in group.get("PixelValueTransformationSequence") or []]
    return items[0] if items else part


def new_object(moving: SourceSeries, sop_class: str, modality: str, description: str, number: int) -> Any:
    """A new object of the moving images' patient and study: who, when, and by what it was made.

    Args:
        moving: whose patient and study it gets.
        sop_class: its UID.
        modality: of the series that it belongs to.
        description: of that series.
        number: of that series, among those that are derived from the moving one.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    result, now = Dataset(), datetime.now()
    for element in moving.shared:
        if element.tag.group in (0x0010, 0x0012) or element.keyword in KEPT:
            result.add(deepcopy(element))
    for name in REQUIRED:
        if name not in result:
            setattr(result, name, "")
    result.file_meta = FileMetaDataset()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result.file_meta.MediaStorageSOPClassUID = result.SOPClassUID = UID(sop_class)
    result.file_meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID = generate_uid(prefix=None)
    result.Modality, result.SeriesDescription = modality, description[:64]
    result.SeriesInstanceUID = generate_uid(prefix=None)
    result.SeriesNumber, result.InstanceNumber = series_number(moving, number), 1
    for name in ("InstanceCreation", "Series", "Content"):
        setattr(result, f"{name}Date", now.strftime("%Y%m%d"))
        setattr(result, f"{name}Time", now.strftime("%H%M%S"))
    result.Manufacturer = result.ManufacturerModelName = SOFTWARE
    result.SoftwareVersions, result.DeviceSerialNumber = __version__, "none"
    if scanner := _scanner(moving):
        result.ContributingEquipmentSequence = [scanner]
    return result


def series_number(moving: SourceSeries, number: int) -> int:
    """What the series that are derived from the moving one are called, so that they follow the study's own."""
    return 1000 + 10 * (int(moving.shared.get("SeriesNumber") or 0) % 10**6) + number


def code_item(value: str, meaning: str) -> Any:
    """A code of DICOM's own."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _scanner(moving: SourceSeries) -> Any:
    """The equipment that the moving images were acquired by, where they name it."""
    from pydicom.dataset import Dataset

    if not moving.shared.get("Manufacturer"):
        return None
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item("109101", "Acquisition Equipment")]
    for name in SCANNER:
        if moving.shared.get(name):
            setattr(item, name, moving.shared.get(name))
    return item
