"""A map as DICOM: a Spatial Registration object where it is affine, else a Deformable one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fmirnet_monai.spatial import Affine, DisplacementField, Map
from fmirnet_monai.spatial.dicom import DEFORMABLE, SPATIAL, grid_item, matrix_item

from .dicom_pair import DicomPair
from .dicom_source import SOFTWARE, code_item, new_object


def write_dicom_transform(pair: DicomPair, found: Map, file: Path) -> None:
    """Write a map as a Spatial Registration object where it is affine, else as a Deformable one.

    Args:
        pair: that it was found for.
        found: affine, or a field on the fixed grid and what follows it.
        file: to write.
    """
    from pydicom.dataset import Dataset

    affine = isinstance(found, Affine)
    result = new_object(pair.moving, SPATIAL if affine else DEFORMABLE, "REG", "Registration", 1)
    fixed = pair.fixed.slices[0]
    result.FrameOfReferenceUID = fixed.FrameOfReferenceUID
    result.PositionReferenceIndicator = fixed.get("PositionReferenceIndicator") or ""
    result.ContentLabel, result.ContentDescription, result.ContentCreatorName = "REGISTRATION", SOFTWARE, ""
    items = []
    for side, through in ((pair.fixed, Affine.identity(3)), (pair.moving, found)):
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
    _refer(pair, result)
    result.save_as(file, enforce_file_format=True)


def _refer(pair: DicomPair, result: Any) -> None:
    """List the series that an object refers to, those of its own study and those of another."""
    from pydicom.dataset import Dataset

    own: list[Any] = []
    others: list[Any] = []
    for side in (pair.fixed, pair.moving):
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
