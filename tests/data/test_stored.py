"""What is stored like the file that it was made of, and what NIfTI headers say, read by nibabel, ITK and Pillow."""

from __future__ import annotations

from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from conftest import SeriesWriter, change_tags
from PIL import Image
from pydicom.dataset import Dataset

from fmirnet_monai import __version__
from fmirnet_monai.cli import main
from fmirnet_monai.data import Stored, nifti_code, read_image, stored_as, write_image
from fmirnet_monai.spatial import Affine, Grid
from fmirnet_monai.spatial.itk import write_transform

VALUES = np.random.default_rng(0).uniform(-900, 3000, (9, 8, 7))


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])
def test_whole_numbers_are_rounded_to_the_nearest_and_clipped(kind: str) -> None:
    stored = Stored(np.dtype(kind))
    info = np.iinfo(kind)
    values = np.array([-1e30, -2.5, -0.6, 0.4, 0.6, 7.49, 100.0, 1e30])
    numbers = stored.pack(values)
    assert numbers.dtype == kind
    assert numbers[0] == info.min and numbers[-1] >= info.max * 0.999 and numbers[-2] == 100
    np.testing.assert_array_equal(numbers[3:6], [0, 1, 7])
    assert numbers[2] == (0 if info.min == 0 else -1)


@pytest.mark.parametrize(("kind", "ends"), [("u2", (0, 4095)), ("i2", (-2048, 2047))])
def test_no_number_takes_more_bits_than_there_are(kind: str, ends: tuple[int, int]) -> None:
    numbers = Stored(np.dtype(kind), bits=12).pack(np.array([-1e6, 1e6]))
    assert (*numbers,) == ends


def test_values_come_back_to_half_a_step() -> None:
    stored = Stored(np.dtype("i2"), 0.25, -7.0)
    back = stored.pack(VALUES) * 0.25 - 7.0
    assert np.abs(back - VALUES).max() <= 0.125


def volume(path: Path, kind: str, slope: float = 1.0, inter: float = 0.0, code: int = 1) -> Path:
    image = nib.Nifti1Image(np.rint((VALUES - inter) / slope).astype(kind), None, dtype=np.dtype(kind))
    image.header.set_slope_inter(slope, inter)
    image.set_sform(np.diag([-2.0, -2, 3, 1]), code)
    image.set_qform(np.diag([-2.0, -2, 3, 1]), code)
    nib.save(image, path)
    return path


def warped(image: Path, output: Path, shift: float = 0.0, **options: str) -> Path:
    """By the command, moved by some mm."""
    dims = read_image(image, track_meta=False).dim() - 1
    matrix = np.eye(dims + 1)
    matrix[0, -1] = shift
    transform = write_transform(Affine(matrix), output.with_name("t.tfm"))
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    main(["warp", "--image", str(image), "--transform", str(transform), "--reference", str(image), "--output",
          str(output), *words])  # fmt: skip
    return output


@pytest.mark.parametrize(
    ("kind", "slope", "inter"),
    [("i2", 1.0, 0.0), ("i4", 1.0, 0.0), ("i8", 1.0, 0.0), ("i2", 0.5, -3.0), ("u2", 1.0, -1000.0), ("f4", 1.0, 0.0)]
    + [("f8", 1.0, 0.0), ("f4", 2.0, 1.0)],
)
def test_a_volume_keeps_its_type_and_its_scale(tmp_path: Path, kind: str, slope: float, inter: float) -> None:
    source = volume(tmp_path / "a.nii.gz", kind, slope, inter)
    same = warped(source, tmp_path / "same.nii.gz", dtype="same")
    one, other = nib.load(source), nib.load(same)
    assert other.get_data_dtype() == one.get_data_dtype() == kind
    assert (other.dataobj.slope, other.dataobj.inter) == (slope, inter)
    np.testing.assert_array_equal(other.get_fdata(), one.get_fdata())
    np.testing.assert_allclose(itk.array_from_image(itk.imread(str(same), itk.D)).T, one.get_fdata(), atol=1e-3)
    plain = nib.load(warped(source, tmp_path / "plain.nii.gz", 1.3))
    moved = nib.load(warped(source, tmp_path / "moved.nii.gz", 1.3, dtype="same"))
    assert plain.get_data_dtype() == np.float32
    off = np.abs(moved.get_fdata() - plain.get_fdata()).max()
    assert off <= (slope / 2 + 1e-3 if kind[0] in "iu" else 1e-3)


def test_other_formats_hold_the_values_of_the_type(tmp_path: Path) -> None:
    source = volume(tmp_path / "a.nii.gz", "u2", 1.0, -1000.0)
    for suffix in (".mha", ".nrrd"):
        found = itk.imread(str(warped(source, tmp_path / f"b{suffix}", dtype="same")))
        np.testing.assert_array_equal(itk.array_from_image(found).T, nib.load(source).get_fdata())
        assert itk.array_from_image(found).dtype == np.int16
        assert stored_as(tmp_path / f"b{suffix}") == Stored(np.dtype("i2"))
    scaled = volume(tmp_path / "c.nii.gz", "i2", 0.5)
    with pytest.raises(
        ValueError, match=r"c\.mha: its values are 0\.5 times the stored ones plus 0, which \.mha can't"
    ):
        write_image(read_image(scaled, track_meta=False), tmp_path / "c.mha", stored=stored_as(scaled))


def test_a_picture_stays_a_picture(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(Image.open(warped(tmp_path / "a.png", tmp_path / "b.png", dtype="same")), pixels)
    half = Image.open(warped(tmp_path / "a.png", tmp_path / "c.png", 0.5, dtype="same"))
    assert half.mode == "L" and not np.array_equal(half, pixels)
    assert nib.load(warped(tmp_path / "a.png", tmp_path / "d.nii", dtype="same")).get_data_dtype() == np.uint8


def test_a_type_that_is_none_is_refused_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        warped(volume(tmp_path / "a.nii", "i2"), tmp_path / "b.nii", dtype="int16")
    assert "dtype must be float32 or same, got 'int16'." in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["register", "--moving", "a", "--fixed", "b", "--output_dir", str(tmp_path), "--format", "dcm"])
    assert "format must be nifti or dicom, got 'dcm'." in capsys.readouterr().err


@pytest.mark.parametrize(("code", "expected"), [(1, 1), (2, 2), (4, 4), (0, 2)])
def test_a_header_says_what_it_holds(tmp_path: Path, code: int, expected: int) -> None:
    reference = volume(tmp_path / "a.nii.gz", "i2", code=code)
    assert nifti_code(reference) == expected
    header = nib.load(warped(reference, tmp_path / "b.nii.gz")).header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (expected, expected)
    assert header.get_xyzt_units() == ("mm", "sec")
    assert header["descrip"].item().decode() == f"fmirnet_monai {__version__}"
    read = itk.imread(str(tmp_path / "b.nii.gz"))
    assert (*read.GetSpacing(),) == (2, 2, 3)
    np.testing.assert_allclose(header.get_sform(), header.get_qform(), atol=1e-5)


def test_what_comes_of_no_nifti_is_aligned(tmp_path: Path) -> None:
    image = torch.from_numpy(VALUES[None].astype(np.float32))
    source = write_image(image, tmp_path / "a.mha", Grid(VALUES.shape, np.diag([-2.0, -2, 3, 1])))
    assert nifti_code(source) == 2
    assert int(nib.load(warped(source, tmp_path / "b.nii.gz")).header["sform_code"]) == 2


@pytest.mark.parametrize("frames", [1, 3])
def test_dicom_is_stored_as_its_tags_say(tmp_path: Path, write_series: SeriesWriter, frames: int) -> None:
    (file, *_) = write_series(tmp_path / "s", np.arange(7 * 6 * 3).reshape(7, 6, 3), np.eye(4), rescale=[(2, -5)] * 3)
    change_tags(file, BitsStored=12, HighBit=11)
    expected = Stored(np.dtype("u2"), 2.0, -5.0, 12)
    if frames == 1:
        assert stored_as(file) == expected
        return
    dataset = pydicom.dcmread(file)
    transformation, group = Dataset(), Dataset()
    transformation.RescaleSlope, transformation.RescaleIntercept = 2, -5
    group.PixelValueTransformationSequence = [transformation]
    del dataset.RescaleSlope, dataset.RescaleIntercept
    dataset.NumberOfFrames, dataset.SharedFunctionalGroupsSequence = frames, [group]
    dataset.save_as(file)
    assert stored_as(file) == expected


def test_a_type_that_can_t_be_made_out_is_told(tmp_path: Path, write_series: SeriesWriter) -> None:
    (file, *_) = write_series(tmp_path / "s", np.arange(42).reshape(7, 6, 1), np.eye(4))
    change_tags(file, BitsStored=1)
    with pytest.raises(ValueError, match=r"dcm: its pixels take 1 of 16 bits; leave out --dtype and --format"):
        stored_as(file)


def test_mgh_keeps_its_type(tmp_path: Path) -> None:
    nib.save(nib.MGHImage(np.rint(VALUES).astype(np.int16), np.diag([2.0, 2, 3, 1])), tmp_path / "a.mgz")
    found = nib.load(warped(tmp_path / "a.mgz", tmp_path / "b.nii", dtype="same"))
    assert found.get_data_dtype() == np.int16
    np.testing.assert_array_equal(found.get_fdata(), np.rint(VALUES))
