"""DICOM whose place ITK would make up: what the tags say holds, and what they don't say is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import SeriesWriter, change_tags
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, SegmentationStorage

from fmirnet_monai import Grid, read_image, read_label

STORED = np.random.default_rng(0).integers(0, 900, (7, 6, 5))
LPS = np.array([[0.0, 1.5, 0, 33], [2.25, 0, 0, -20], [0, 0, -4.0, 7], [0, 0, 0, 1]])  # along a row to the back
RAS = np.diag([-1.0, -1, 1, 1]) @ LPS


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f[0].write_bytes(b""), r"1 of 5 files can't be read as slices of the series, the first 0\.dcm"),
        (lambda f: f[4].write_bytes(f[4].read_bytes()[:-30]), r"1 of 5 files .* the first 4\.dcm"),
        (lambda f: (f[0].parent / "IM7").write_text("no DICOM"), r"1 of 6 files .* the first IM7"),
        (lambda f: change_tags(f[2], ImagePositionPatient=None), r"2\.dcm: has no ImagePositionPatient"),
        (lambda f: change_tags(f[2], ImageOrientationPatient=None), r"2\.dcm: has no ImageOrientationPatient"),
        (lambda f: change_tags(f[2], PixelSpacing=None), r"2\.dcm: has no PixelSpacing"),
        (lambda f: change_tags(f[2], PixelSpacing=[0, 1]), r"2\.dcm: its PixelSpacing is \[0\.0, 1\.0\]"),
        (lambda f: change_tags(f[2], PixelSpacing=[3, 3]), r"slices differ in orientation or pixel size"),
        (lambda f: change_tags(f[2], ImageOrientationPatient=[1, 0, 0, 0, 1, 0]), r"slices differ in orientation"),
        (lambda f: change_tags(f[2], SpacingBetweenSlices=0), r"2\.dcm: its SpacingBetweenSlices is 0; remove it"),
        (lambda f: change_tags(f[0], SpacingBetweenSlices=0), r"0\.dcm: its SpacingBetweenSlices is 0; remove it"),
        (lambda f: change_tags(f[0], PixelSpacing=[0, 1]), r"0\.dcm: its PixelSpacing is \[0\.0, 1\.0\]"),
        (lambda f: [change_tags(x, ImagePositionPatient=[33, -20, 7]) for x in f], r"lie at one place"),
        (lambda f: change_tags(f[2], ImagePositionPatient=[33, -20, 3]), r"lie at one place"),
        (lambda f: change_tags(f[2], Rows=3, Columns=2, PixelData=bytes(12)), r"2\.dcm: is 2 x 3, other .* are 7 x 6"),
        (lambda f: change_tags(f[0], SOPClassUID=SegmentationStorage), r"is a DICOM segmentation"),
    ],
)
def test_a_series_that_is_not_whole_or_says_not_where_it_lies(
    tmp_path: Path, write_series: SeriesWriter, damage: Callable[[list[Path]], object], message: str
) -> None:
    damage(write_series(tmp_path, STORED, LPS, names=[f"{k}.dcm" for k in range(5)]))
    with pytest.raises(ValueError, match=message):
        read_image(tmp_path)


def test_what_lies_beside_a_series_and_is_none_of_it(tmp_path: Path, write_series: SeriesWriter) -> None:
    write_series(tmp_path, STORED, LPS)
    for name in ("DICOMDIR", "notes.txt", ".DS_Store", "preview.png"):
        (tmp_path / name).write_text("something")
    assert read_image(tmp_path).shape == (1, 7, 6, 5)


def frames(file: Path, order: list[int], heights: list[float] | None, measured: bool = True) -> Path:
    """The slices in this order as the frames of one file, at these heights along the normal."""
    dataset = pydicom.dcmread(file)
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, tag)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    dataset.NumberOfFrames = len(order)
    dataset.PixelData = np.ascontiguousarray(STORED[..., order].transpose(2, 1, 0).astype("<i2")).tobytes()
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [*LPS[:3, 0] / 2.25, *LPS[:3, 1] / 1.5]
    measures.PixelSpacing = [1.5, 2.25]
    shared.PlaneOrientationSequence = Sequence([orientation])
    if measured:
        shared.PixelMeasuresSequence = Sequence([measures])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    parts = []
    for index in order:
        position, part = Dataset(), Dataset()
        if heights is not None:
            position.ImagePositionPatient = [33, -20, 7 - heights[index]]
            part.PlanePositionSequence = Sequence([position])
        parts.append(part)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(parts)
    dataset.save_as(file)
    return file


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 0, 4, 1, 2], [4, 3, 2, 1, 0]])
def test_frames_lie_where_they_say_in_whatever_order(
    tmp_path: Path, write_series: SeriesWriter, order: list[int]
) -> None:
    (file, *_) = write_series(tmp_path, STORED, LPS)
    image = read_image(frames(file, order, [0, 4, 8, 12, 16]))
    np.testing.assert_allclose(Grid.of(image).spacing, (2.25, 1.5, 4))
    voxels = np.argwhere(np.ones(STORED.shape, dtype=bool))
    there = np.rint(Grid.of(image).to_voxel(voxels @ RAS[:3, :3].T + RAS[:3, 3])).astype(int)
    np.testing.assert_allclose(Grid.of(image).to_world(there), voxels @ RAS[:3, :3].T + RAS[:3, 3], atol=1e-6)
    np.testing.assert_array_equal(image[0].numpy()[tuple(there.T)], STORED[tuple(voxels.T)])


@pytest.mark.parametrize(
    ("heights", "measured", "message"),
    [
        (None, True, "frame 1: has no ImagePositionPatient"),
        ([0, 4, 8, 12, 16], False, "frame 1: has no PixelSpacing"),
        ([0, 4, 4, 8, 12], True, "frame 2 and .*frame 3 lie at one place"),
        ([0, 4, 8, 16, 20], True, "not evenly spaced"),
    ],
)
def test_frames_that_make_no_volume(
    tmp_path: Path, write_series: SeriesWriter, heights: list[float] | None, measured: bool, message: str
) -> None:
    (file, *_) = write_series(tmp_path, STORED, LPS)
    with pytest.raises(ValueError, match=message):
        read_image(frames(file, [0, 1, 2, 3, 4], heights, measured))


def test_a_segmentation_is_no_label_map(tmp_path: Path, write_series: SeriesWriter) -> None:
    (file, *_) = write_series(tmp_path, STORED, LPS)
    frames(file, [0, 1, 2, 3, 4], [0, 4, 8, 12, 16])
    change_tags(file, SOPClassUID=SegmentationStorage)
    with pytest.raises(ValueError, match=r"is a DICOM segmentation, .* convert it to a label map"):
        read_label(file)


def test_a_picture_without_the_size_of_its_pixels_is_told(tmp_path: Path, write_series: SeriesWriter) -> None:
    (file,) = write_series(tmp_path, STORED[..., :1], LPS)
    change_tags(file, PixelSpacing=None, SOPClassUID=CTImageStorage)
    with pytest.warns(UserWarning, match="has no PixelSpacing; its pixels are taken to be 1 mm wide"):
        assert read_image(file).shape == (1, 7, 6, 1)
