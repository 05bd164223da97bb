"""Images and points in and out: SimpleITK, the independent tool, puts every voxel at the same place."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image

from fmirnet_monai.data import (
    Points,
    check_label_inside,
    check_points_inside,
    paired,
    read_chaos_case,
    read_image,
    read_label,
    read_points,
    write_image,
    write_points,
)
from fmirnet_monai.data.images import check_common_labels
from fmirnet_monai.spatial import Grid

SeriesWriter = Callable[..., list[Path]]
FORMATS = [".nii.gz", ".nii", ".mha", ".mhd", ".nrrd"]
FLIP = np.array([-1.0, -1.0, 1.0])


def oblique(dims: int) -> NDArray[np.float64]:
    """A rotation about no particular axis."""
    c, s = np.cos(0.4), np.sin(0.4)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    return turn[:2, :2] if dims == 2 else turn @ np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]])


def directions(dims: int) -> dict[str, NDArray[np.float64]]:
    flips = np.diag([-1.0, 1.0, -1.0][:dims])
    return {"plain": np.eye(dims), "flipped": flips, "oblique": oblique(dims), "both": oblique(dims) @ flips}


def make_sitk(dims: int, direction: NDArray, shape: tuple[int, ...] = (7, 6, 5), kind: type = np.float32) -> sitk.Image:
    """Random voxels, another size and spacing along each axis, an origin off zero."""
    values = np.random.default_rng(0).integers(0, 900, shape[:dims]).astype(kind)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    image.SetSpacing([1.5, 2.25, 4.0][:dims])
    image.SetOrigin([33.5, -20.25, 7.0][:dims])
    image.SetDirection(direction.ravel().tolist())
    return image


def assert_same(image: torch.Tensor, reference: sitk.Image, tolerance: float = 1e-3) -> None:
    """Same voxel values, and every corner voxel at the same place in LPS mm."""
    dims = reference.GetDimension()
    assert tuple(image.shape) == (1, *reference.GetSize())
    np.testing.assert_allclose(image[0].numpy(), sitk.GetArrayFromImage(reference).T, atol=1e-3)
    corners = list(product(*[(0, n - 1) for n in reference.GetSize()]))
    expected = [reference.TransformIndexToPhysicalPoint(corner) for corner in corners]
    np.testing.assert_allclose(Grid.of(image).to_world(corners) * FLIP[:dims], expected, atol=tolerance)


def write_sitk(folder: Path, name: str, values: NDArray, vector: bool = False) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=vector), str(folder / name))
    return folder / name


@pytest.fixture
def noise() -> NDArray[np.float32]:
    """Values that don't compress, so that half a file is half the voxels."""
    return np.random.default_rng(1).random((12, 11, 10)).astype(np.float32)


# --- reading images ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "flipped", "oblique", "both"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("suffix", FORMATS)
def test_places_and_values_are_those_of_simpleitk(tmp_path: Path, suffix: str, dims: int, name: str) -> None:
    path = tmp_path / f"image{suffix}"
    sitk.WriteImage(make_sitk(dims, directions(dims)[name]), str(path))
    image = read_image(str(path))
    assert_same(image, sitk.ReadImage(str(path)))
    assert_same(image, make_sitk(dims, directions(dims)[name]))
    assert isinstance(image, MetaTensor)
    assert image.dtype == torch.float32
    assert tuple(image.affine.shape) == (dims + 1, dims + 1)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_volume_of_one_slice_stays_3d(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"slice{suffix}"
    sitk.WriteImage(make_sitk(3, oblique(3), shape=(7, 6, 1)), str(path))
    assert_same(read_image(path), make_sitk(3, oblique(3), shape=(7, 6, 1)))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_pictures(tmp_path: Path, suffix: str) -> None:
    values = np.random.default_rng(0).integers(0, 255, (9, 7)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / f"picture{suffix}")
    image = read_image(tmp_path / f"picture{suffix}")
    assert_same(image, sitk.ReadImage(str(tmp_path / f"picture{suffix}")))
    assert image.shape == (1, 7, 9)


def series_affine(direction: NDArray) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = direction * (1.5, 2.25, 4.0)
    affine[:3, 3] = (33.5, -20.25, 7.0)
    return affine


@pytest.mark.parametrize("direction", [np.eye(3), np.diag([-1.0, 1, -1]), oblique(3)], ids=["plain", "flip", "oblique"])
def test_dicom_series_with_shuffled_names(tmp_path: Path, write_series: SeriesWriter, direction: NDArray) -> None:
    stored = np.random.default_rng(0).integers(0, 900, (7, 6, 5))
    rescale = [(1.5, -1000.0), (1.5, -1000.0), (2.0, -900.0), (1.5, -1000.0), (1.5, -1000.0)]
    affine = series_affine(direction)
    write_series(tmp_path, stored, affine, names=["d", "b", "e", "a", "c"], rescale=rescale)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    reader.SetOutputPixelType(sitk.sitkFloat32)
    image = read_image(tmp_path)
    assert_same(image, reader.Execute())
    # and, apart from any reader, where the series was made to lie
    hounsfield = stored * [slope for slope, _ in rescale] + np.array([offset for _, offset in rescale])
    voxels = np.argwhere(np.ones(stored.shape, dtype=bool))
    world = (voxels @ affine[:3, :3].T + affine[:3, 3]) * FLIP
    there = np.rint(Grid.of(image).to_voxel(world)).astype(int)
    np.testing.assert_allclose(Grid.of(image).to_world(there), world, atol=1e-3)
    np.testing.assert_allclose(image[0].numpy()[tuple(there.T)], hounsfield[tuple(voxels.T)], atol=1e-3)


def test_a_single_dicom_file_is_one_rescaled_slice(tmp_path: Path, write_series: SeriesWriter) -> None:
    stored = np.random.default_rng(0).integers(0, 900, (7, 6, 1))
    (file,) = write_series(tmp_path, stored, series_affine(oblique(3)), rescale=[(1, -1024)])
    assert_same(read_image(file), sitk.ReadImage(str(file)))
    assert_same(read_image(tmp_path), sitk.ReadImage(str(file)))
    np.testing.assert_array_equal(read_image(file)[0].numpy(), stored - 1024)


# --- two places of one NIfTI ---------------------------------------------------------------------------------------

HERE = np.array([[0.0, -1.2, 0, 5], [1.5, 0, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1]])
THERE = HERE + np.array([[0, 0, 0, 40.0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
SHEARED = HERE + np.array([[0.2, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
NEAR = HERE + np.array([[0, 0, 0, 0.1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])  # a twelfth of a voxel


def write_twice(path: Path, values: NDArray, qform: NDArray, sform: NDArray, codes: tuple[int, int]) -> Path:
    """A NIfTI that states its place as qform and as sform, with their codes."""
    image = (nib.Nifti1Pair if path.suffix == ".hdr" else nib.Nifti1Image)(values, None)
    image.header.set_qform(qform, codes[0])
    image.header.set_sform(sform, codes[1])
    nib.save(image, path)
    return path


@pytest.mark.parametrize(
    ("qform", "sform", "codes", "taken"),
    [
        (HERE, THERE, (1, 2), "qform"),
        (HERE, THERE, (2, 1), "sform"),
        (HERE, THERE, (1, 1), "sform"),
        (HERE, THERE, (2, 4), "qform"),
        (HERE, SHEARED, (1, 1), "qform"),
        (HERE, SHEARED, (1, 2), "qform"),
        (HERE, HERE, (1, 1), None),
        (HERE, NEAR, (1, 2), None),
        (HERE, THERE, (1, 0), None),
        (HERE, THERE, (0, 2), None),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr"])
def test_of_two_places_that_of_simpleitk_is_taken_and_it_is_said(
    tmp_path: Path,
    noise: NDArray,
    qform: NDArray,
    sform: NDArray,
    codes: tuple[int, int],
    taken: str | None,
    suffix: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = write_twice(tmp_path / f"image{suffix}", noise, qform, sform, codes)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = read_image(path)
        read_image(path)
    assert capfd.readouterr().err == ""
    assert_same(found, sitk.ReadImage(str(path)))
    assert len(said) == (taken is not None)
    if taken:
        text = str(said[0].message)
        assert text.startswith(f"{path}: ") and f"taken is the {taken}" in text and "\n" not in text
        other = "sform" if taken == "qform" else "qform"
        assert f"fslorient -copy{taken}2{other}" in text
        assert ("40 mm (33.3 voxels)" if sform is THERE else "2.2 mm (1.83 voxels)") in text


def test_a_label_is_placed_as_its_image(tmp_path: Path, noise: NDArray) -> None:
    path = write_twice(tmp_path / "label.nii.gz", (noise > 0.5).astype(np.uint8), HERE, THERE, (1, 2))
    with pytest.warns(UserWarning, match=r"label\.nii\.gz: its qform and its sform lie up to 40 mm"):
        label = read_label(path)
    assert_same(label, sitk.ReadImage(str(path)))


def test_slices_with_two_places(tmp_path: Path, noise: NDArray) -> None:
    qform, sform = np.diag([1.5, 2, 3, 1]), np.diag([1.5, 3, 3, 1])
    path = write_twice(tmp_path / "slice.nii.gz", noise[..., 0], qform, sform, (1, 2))
    with pytest.warns(UserWarning, match=r"slice\.nii\.gz: .* 10 mm \(5 voxels\) apart; taken is the qform"):
        assert_same(read_image(path), sitk.ReadImage(str(path)))


def sheared(path: Path, values: NDArray, degrees: float) -> Path:
    """A NIfTI with one place, whose first two axes are so far off right angles."""
    affine = np.eye(4)
    affine[:3, :3] = oblique(3) @ np.array([[1, np.sin(np.radians(degrees)), 0], [0, 1, 0], [0, 0, 1]]) * (1.5, 1.2, 2)
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, 1)
    image.header["qform_code"] = 0
    nib.save(image, path)
    return path


def test_axes_off_by_rounding_are_set_right(tmp_path: Path, noise: NDArray) -> None:
    path = sheared(tmp_path / "rounded.nii.gz", noise, 0.03)
    with pytest.warns(
        UserWarning, match=r"rounded\.nii\.gz: its axes are 0\.03 degrees off .* were set right, by up to"
    ):
        image = read_image(path)
    stated, found = Grid(noise.shape, nib.load(path).affine), Grid.of(image)
    direction = found.affine[:3, :3] / found.spacing
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(found.spacing, stated.spacing)
    assert 1e-4 < found.distance(stated) < 0.01  # 12 voxels, turned by 0.015 degrees
    np.testing.assert_array_equal(image[0].numpy(), noise)


def test_sheared_axes_are_refused_for_what_they_are(tmp_path: Path, noise: NDArray) -> None:
    refused(sheared(tmp_path / "sheared.nii", noise, 0.2), r"axes are not at right angles .* resample it first")


@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz", ".MGH"])
def test_what_nibabel_reads_and_itk_does_not(tmp_path: Path, noise: NDArray, suffix: str) -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = oblique(3) * (1.5, 1.2, 2), (5, 6, 7)
    kind = nib.Nifti2Image if suffix == ".nii.gz" else nib.MGHImage
    kind(noise.astype(np.float32), affine).to_filename(tmp_path / f"image{suffix.lower()}")
    (tmp_path / f"image{suffix.lower()}").rename(tmp_path / f"image{suffix}")
    image = read_image(tmp_path / f"image{suffix}")
    np.testing.assert_array_equal(image[0].numpy(), noise.astype(np.float32))
    np.testing.assert_allclose(np.asarray(image.affine), affine, atol=1e-5)


def test_a_label_with_a_palette_is_its_indices(tmp_path: Path) -> None:
    indices = np.random.default_rng(0).integers(0, 4, (6, 9)).astype(np.uint8)
    picture = Image.fromarray(indices, "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 90, 90, 90])
    picture.save(tmp_path / "label.png")
    label = read_label(tmp_path / "label.png")
    np.testing.assert_array_equal(label[0].numpy(), indices.T)
    Image.fromarray(indices).save(tmp_path / "grey.png")
    assert Grid.of(label).matches(Grid.of(read_label(tmp_path / "grey.png")))


# --- what is refused ---------------------------------------------------------------------------------------------


def refused(path: Path, match: str, read: Callable = read_image, error: type[Exception] = ValueError) -> None:
    with pytest.raises(error, match=match) as raised:
        read(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.95])
def test_truncated_files(
    tmp_path: Path, noise: NDArray, suffix: str, kept: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_sitk(tmp_path, f"image{suffix}", noise)
    read_image(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    refused(path, "can't be read")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_truncated_pictures(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-800])
    refused(path, "can't be read")


def test_stderr_is_given_back(tmp_path: Path, noise: NDArray, capfd: pytest.CaptureFixture[str]) -> None:
    read_image(write_sitk(tmp_path, "image.mha", noise))
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


@pytest.mark.parametrize("content", [None, b"abcd"], ids=["missing", "short"])
def test_mhd_without_its_raw(
    tmp_path: Path, noise: NDArray, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_sitk(tmp_path, "image.mhd", noise)
    (data,) = set(tmp_path.iterdir()) - {path}
    data.unlink()
    if content:
        data.write_bytes(content)
    refused(path, "incomplete.*mhd needs its data file")
    assert capfd.readouterr().err == ""


def test_files_that_are_no_image(tmp_path: Path) -> None:
    refused(tmp_path / "image.nii.gz", "no such image", error=FileNotFoundError)
    (tmp_path / "text.nii").write_text("not an image " * 100)
    refused(tmp_path / "text.nii", "can't be read")
    refused(tmp_path, "no DICOM series")


def test_axes_components_and_size(tmp_path: Path, noise: NDArray) -> None:
    nib.save(nib.Nifti1Image(noise[..., None].repeat(2, -1), np.eye(4)), tmp_path / "four.nii.gz")
    refused(tmp_path / "four.nii.gz", "4 axes")
    Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(tmp_path / "colour.png")
    refused(tmp_path / "colour.png", "3 values per voxel")
    refused(write_sitk(tmp_path, "vector.mha", noise[..., :2], vector=True), "2 values per voxel")
    refused(write_sitk(tmp_path, "line.mha", noise[:, :1, :1]), "fewer than two axes")
    refused(write_sitk(tmp_path, "row.mha", noise[0, :1]), "fewer than two axes")
    assert read_image(write_sitk(tmp_path, "coronal.mha", noise[:, :1])).shape == (1, 10, 1, 12)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path: Path, noise: NDArray, bad: float, suffix: str) -> None:
    noise[3, 4, 5] = bad
    path = write_sitk(tmp_path, f"image{suffix}", noise)
    refused(path, "1 of 1320 intensities are NaN or infinite")


def test_constant_image(tmp_path: Path, noise: NDArray) -> None:
    refused(write_sitk(tmp_path, "image.mha", noise * 0 + 7), "intensities are 7")


def test_several_dicom_series(tmp_path: Path, write_series: SeriesWriter) -> None:
    for name in "ab":
        write_series(tmp_path, np.ones((5, 4, 3)), series_affine(np.eye(3)), names=[f"{name}{k}" for k in range(3)])
    refused(tmp_path, r"2 DICOM series: [\d.]+ \(3 files\), [\d.]+ \(3 files\); put each")


def test_dicom_slice_missing_or_tilted(tmp_path: Path, write_series: SeriesWriter) -> None:
    stored = np.random.default_rng(0).integers(0, 900, (7, 6, 5))
    write_series(tmp_path / "gap", stored, series_affine(np.eye(3)))[2].unlink()
    refused(tmp_path / "gap", "not evenly spaced")
    tilted = series_affine(np.eye(3))
    tilted[1, 2] = 0.5
    write_series(tmp_path / "tilted", stored, tilted)
    refused(tmp_path / "tilted", "gantry tilt")


# --- labels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float64, np.uint32])
def test_label_values_and_place(tmp_path: Path, kind: type) -> None:
    reference = make_sitk(3, oblique(3), kind=np.uint8)
    sitk.WriteImage(
        sitk.Cast(reference, sitk.GetImageFromArray(np.zeros((1, 1), kind)).GetPixelID()), str(tmp_path / "a.mha")
    )
    label = read_label(tmp_path / "a.mha")
    assert label.dtype == torch.int32
    assert_same(label, reference)


def test_large_label_numbers_stay_apart(tmp_path: Path) -> None:
    values = np.array([[0, 2**24], [2**24 + 1, 614454277]], np.uint32)
    assert read_label(write_sitk(tmp_path, "a.nrrd", values))[0].T.tolist() == values.tolist()


def test_labels_refused(tmp_path: Path, noise: NDArray) -> None:
    refused(write_sitk(tmp_path, "soft.mha", noise), "whole numbers", read_label)
    refused(write_sitk(tmp_path, "minus.mha", np.rint(noise) - 1), "found -1 to 0", read_label)
    refused(write_sitk(tmp_path, "empty.mha", noise * 0), "background", read_label)
    refused(write_sitk(tmp_path, "nan.mha", noise * np.nan), "NaN", read_label)
    refused(write_sitk(tmp_path, "big.mha", np.array([[0, 1], [2, 2**31]], np.uint32)), "renumber", read_label)
    refused(tmp_path / "none.mha", "no such image", read_label, FileNotFoundError)


# --- writing images ----------------------------------------------------------------------------------------------


def grid_from(reference: sitk.Image) -> Grid:
    dims = reference.GetDimension()
    affine = np.eye(dims + 1)
    affine[:-1, :-1] = np.reshape(reference.GetDirection(), (dims, dims)) * reference.GetSpacing()
    affine[:-1, -1] = reference.GetOrigin()
    affine[:-1] = np.diag(FLIP[:dims]) @ affine[:-1]
    return Grid(reference.GetSize(), affine)


@pytest.mark.parametrize("name", ["plain", "flipped", "oblique", "both"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_simpleitk_reads_what_was_written(tmp_path: Path, suffix: str, dims: int, name: str) -> None:
    reference = make_sitk(dims, directions(dims)[name])
    values = torch.from_numpy(np.ascontiguousarray(sitk.GetArrayFromImage(reference).T))[None]
    path = write_image(values, tmp_path / "new" / f"image{suffix}", grid_from(reference))
    back = sitk.ReadImage(str(path))
    assert back.GetPixelID() == sitk.sitkFloat32
    assert_same(MetaTensor(values, affine=torch.from_numpy(grid_from(reference).affine)), back)
    assert_same(read_image(path), reference)
    again = write_image(read_image(path), tmp_path / f"again{suffix}")
    assert_same(read_image(again), reference)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 200], sitk.sitkUInt8),
        ([-5, 200], sitk.sitkInt16),
        ([0, 70000], sitk.sitkInt32),
        ([False, True], sitk.sitkUInt8),
        ([0.5, 1.0], sitk.sitkFloat32),
    ],
)
def test_stored_type(tmp_path: Path, values: list, kind: int) -> None:
    image = torch.tensor(values).expand(3, 2)[None]
    image = image.double() if image.is_floating_point() else image
    back = sitk.ReadImage(str(write_image(image, tmp_path / "image.nii.gz")))
    assert back.GetPixelID() == kind
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back).T, image[0].numpy())


def test_png(tmp_path: Path) -> None:
    values = torch.arange(0, 240, 10).reshape(1, 6, 4)
    back = sitk.ReadImage(str(write_image(values.float(), tmp_path / "picture.png")))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back).T, values[0].numpy())
    for bad in (values + 0.5, values - 1, values + 100, values.reshape(1, 6, 2, 2)):
        with pytest.raises(ValueError, match=r"other.png: PNG holds"):
            write_image(bad, tmp_path / "other.png")
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


def test_images_that_are_not_written(tmp_path: Path) -> None:
    image = torch.rand(1, 4, 5, 6)
    shear = np.eye(4)
    shear[0, 1] = 0.3
    for name, grid, match in [
        ("image.tiff", None, r"unknown suffix, expected one of .nii.gz"),
        ("image", None, "unknown suffix"),
        ("image.mhd", None, "two files"),
        ("image.mha", Grid((4, 5, 7), np.eye(4)), r"shape \(1, 4, 5, 7\), got \(1, 4, 5, 6\)"),
        ("image.mha", Grid((4, 5, 6), shear), "right angles"),
    ]:
        with pytest.raises(ValueError, match=match):
            write_image(image, tmp_path / name, grid)
    with pytest.raises(ValueError, match="32 bits"):
        write_image(torch.full((1, 3, 3), 2**40), tmp_path / "image.mha")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    resource = pytest.importorskip("resource")
    path = write_image(torch.rand(1, 5, 5), tmp_path / f"image{suffix}")
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, limits[1]))
        with pytest.raises(OSError, match="can't be written"):
            write_image(torch.rand(1, 30, 30, 30), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(image: object, path: Path | str, compression: bool = False) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(itk, "imwrite", stop)
    monkeypatch.setattr(nib, "save", stop)
    for name in ("image.mha", "image.nii.gz"):
        with pytest.raises(KeyboardInterrupt):
            write_image(torch.rand(1, 5, 5), tmp_path / name)
    assert not list(tmp_path.iterdir())


# --- points ------------------------------------------------------------------------------------------------------

LPS = np.array([[10.5, -20.25, 30.125], [1 / 3, 2.0, -3.0]])
RAS = np.array([[-10.5, 20.25, 30.125], [-1 / 3, -2.0, -3.0]])


def test_csv_is_lps(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y,z,t,label\n10.5,-20.25,30.125,0,tip\n2,3,4,0,\n")
    points = read_points(tmp_path / "a.csv", 3)
    np.testing.assert_array_equal(points.positions, [[-10.5, 20.25, 30.125], [-2, -3, 4]])
    assert points.names == ["tip", "2"]
    (tmp_path / "b.csv").write_text("Name, X, Y\nfirst, 1, 2\n")
    points = read_points(tmp_path / "b.csv", 2)
    assert (points.positions.tolist(), points.names) == ([[-1, -2]], ["first"])


def test_a_third_coordinate_of_zero_suits_2d(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y,z,t\n1,2,0,0\n")
    assert read_points(tmp_path / "a.csv", 2).positions.tolist() == [[-1, -2]]


@pytest.mark.parametrize(("system", "expected"), [("LPS", RAS), ("RAS", LPS)])
def test_slicer_markups_state_their_system(tmp_path: Path, system: str, expected: NDArray) -> None:
    control = [{"label": f"F-{k}", "position": p, "positionStatus": "defined"} for k, p in enumerate(LPS.tolist(), 1)]
    content = {"markups": [{"type": "Fiducial", "coordinateSystem": system, "controlPoints": control}]}
    (tmp_path / "F.mrk.json").write_text(json.dumps(content))
    points = read_points(tmp_path / "F.mrk.json", 3)
    np.testing.assert_allclose(points.positions, expected)
    assert points.names == ["F-1", "F-2"]


@pytest.mark.parametrize(("system", "expected"), [("LPS", RAS), ("1", RAS), ("RAS", LPS), ("0", LPS)])
def test_fcsv_states_its_system(tmp_path: Path, system: str, expected: NDArray) -> None:
    rows = [f"vtkMRML_{k},{x!r},{y!r},{z!r},0,0,0,1,1,1,0,F-{k},,," for k, (x, y, z) in enumerate(LPS.tolist(), 1)]
    head = "# Markups fiducial file version = 4.11\n# CoordinateSystem = " + system
    head += "\n# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
    (tmp_path / "F.fcsv").write_text(head + "\n".join(rows) + "\n")
    points = read_points(tmp_path / "F.fcsv", 3)
    np.testing.assert_allclose(points.positions, expected)
    assert points.names == ["F-1", "F-2"]


VTK = "# vtk DataFile Version 3.0\nvtk output\nASCII\nDATASET POLYDATA\n"


def test_vtk_is_lps(tmp_path: Path) -> None:
    (tmp_path / "a.vtk").write_text(VTK + "POINTS 3 float\n1 2 3 4e0 5 \n-6 7 8 9 \nVERTICES 3 6\n1 0\n1 1\n1 2\n")
    points = read_points(tmp_path / "a.vtk", 3)
    assert points.positions.tolist() == [[-1, -2, 3], [-4, -5, -6], [-7, -8, 9]]
    assert points.names == ["1", "2", "3"]


@pytest.mark.parametrize("title", ["vtk output SPACE=RAS", "SPACE=RAS vtk output", "vtk output SPACE=LPS"])
def test_vtk_says_its_space(tmp_path: Path, title: str) -> None:
    (tmp_path / "a.vtk").write_text(VTK.replace("vtk output", title) + "POINTS 1 float\n1 2 3\n")
    sign = 1 if "RAS" in title else -1
    assert read_points(tmp_path / "a.vtk", 3).positions.tolist() == [[sign, 2 * sign, 3]]


@pytest.mark.parametrize(
    ("units", "factor"), [("mm", 1), (["cm", "UCUM", "centimeter"], 10), ("m", 1000), ("um", 1e-3)]
)
def test_markups_in_other_units(tmp_path: Path, units: str | list[str], factor: float) -> None:
    markup = {"coordinateSystem": "RAS", "coordinateUnits": units, "controlPoints": [{"position": [1, 2, 3]}]}
    (tmp_path / "a.mrk.json").write_text(json.dumps({"markups": [markup]}))
    np.testing.assert_allclose(read_points(tmp_path / "a.mrk.json", 3).positions, [[factor, 2 * factor, 3 * factor]])


@pytest.mark.parametrize(("letters", "sign"), [("r,a,s", 1), ("L,P,S", -1), ("x,y,z", -1)])
def test_slicers_table(tmp_path: Path, letters: str, sign: int) -> None:
    text = f"label,{letters},defined,selected,visible,locked,description\nF-1,1,2,3,1,1,1,0,\nF-2,4,5,6,1,1,1,0,tip\n"
    (tmp_path / "a.csv").write_text(text)
    points = read_points(tmp_path / "a.csv", 3)
    assert points.positions.tolist() == [[sign, 2 * sign, 3], [4 * sign, 5 * sign, 6]] and points.names == [
        "F-1",
        "F-2",
    ]
    (tmp_path / "a.csv").write_text(text.replace("4,5,6,1", "0,0,0,0"))
    refused(tmp_path / "a.csv", "point 'F-2' is not defined; place or delete it", lambda path: read_points(path, 3))
    (tmp_path / "a.csv").write_text(text.replace("4,5,6,1", "0,0,0,0").replace("F-2", ""))
    refused(tmp_path / "a.csv", "point 2 is not defined; place or delete it", lambda path: read_points(path, 3))


@pytest.mark.parametrize(
    ("moving", "fixed", "order"),
    [
        (["a", "b", "c"], ["c", "a", "b"], [2, 0, 1]),
        (["a", "b", "c"], ["a", "b", "c"], [0, 1, 2]),
        (["M-1", "M-2", "M-3"], ["F-1", "F-2", "F-3"], [0, 1, 2]),
        ([None, None, None], ["3", "2", "1"], [0, 1, 2]),
        (["3", "2", "1"], [None, None, None], [0, 1, 2]),
        (["3", "2", "1"], ["1", "2", "3"], [2, 1, 0]),
    ],
)
def test_points_are_paired_by_name_where_both_have_names(
    tmp_path: Path, moving: list[str | None], fixed: list[str | None], order: list[int]
) -> None:
    for side, names in (("moving", moving), ("fixed", fixed)):
        rows = [f"{number},0,0,{name or ''}" for number, name in enumerate(names)]
        (tmp_path / f"{side}.csv").write_text("\n".join(["x,y,z,name", *rows]))
    found = paired(*(read_points(tmp_path / f"{side}.csv", 3) for side in ("moving", "fixed")))
    assert (-found.positions[:, 0]).tolist() == order


@pytest.mark.parametrize(
    ("moving", "fixed", "message"),
    [
        ("abc", "abd", "moving_points: 'c' is not among the points of the other image, though others are"),
        ("aab", "abb", "moving_points: 'a' is there twice"),
        ("abc", "abb", "moving_points: 'c' is not among"),
        ("ab", "abc", "must hold the same points, got 2 and 3"),
    ],
)
def test_points_that_can_t_be_paired(moving: str, fixed: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired(*(Points(np.zeros((len(names), 3)), list(names)) for names in (moving, fixed)))


@pytest.mark.parametrize(("one", "other"), [([1, 2], [3, 4]), ([255], [1])])
def test_labels_without_a_number_in_common(one: list[int], other: list[int]) -> None:
    labels = [torch.tensor([[0, *ids]]) for ids in (one, other)]
    with pytest.raises(ValueError, match=r"have no label in common, they hold .* and .*; give each structure the same"):
        check_common_labels(*labels)
    check_common_labels(labels[0], torch.cat([labels[0], labels[1]], 1))
    check_common_labels(labels[0], labels[0] * 0)


@pytest.mark.parametrize("suffix", [".csv", ".mrk.json"])
def test_points_come_back(tmp_path: Path, suffix: str) -> None:
    path = write_points(Points(RAS, ["tip, of the liver", 'b "x"']), tmp_path / "new" / f"p{suffix}")
    points = read_points(path, 3)
    np.testing.assert_array_equal(points.positions, RAS)
    assert points.names == ["tip, of the liver", 'b "x"']
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_is_written_is_lps(tmp_path: Path) -> None:
    points = Points(np.array([[1.0, 2.0, 3.0]]), ["a"])
    assert write_points(points, tmp_path / "p.csv").read_text().split() == ["x,y,z,name", "-1.0,-2.0,3.0,a"]
    (markup,) = json.loads(write_points(points, tmp_path / "p.mrk.json").read_text())["markups"]
    assert (markup["coordinateSystem"], markup["controlPoints"][0]["position"]) == ("LPS", [-1, -2, 3])
    flat = write_points(Points(np.array([[1.0, 2.0]]), ["a"]), tmp_path / "q.csv")
    assert flat.read_text().split() == ["x,y,name", "-1.0,-2.0,a"]
    for name, match in [("q.mrk.json", "3-D points only"), ("q.vtk", "unknown suffix"), ("q.json", "unknown suffix")]:
        with pytest.raises(ValueError, match=match):
            write_points(Points(np.ones((1, 2)), ["a"]), tmp_path / name)
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.csv", "x,y,z\n", "no point"),
        ("a.csv", "", "no point"),
        ("a.csv", "1,2,3\n4,5,6\n", "no column x and y"),
        ("a.csv", "x,y\n1,2\n", "2 coordinates, the images 3"),
        ("a.csv", "x,y,z\n1,2,nan\n", "no finite position, as '1'"),
        ("a.csv", "x,y,z\n1,2,3\n1,,3\n", "1 of 2 points have no finite"),
        ("a.csv", "x,y,z\n1,2,three\n", "can't be read as points: could not convert"),
        ("a.csv", "x,y,z\n1,2\n", "no finite"),
        ("a.txt", "x,y,z\n1,2,3\n", "unknown suffix, expected one of .csv"),
        ("a.json", "{}", "unknown suffix"),
        ("a.mrk.json", "{}", "can't be read as points"),
        ("a.mrk.json", "[]", "can't be read as points"),
        ("a.mrk.json", "{", "can't be read as points"),
        ("a.mrk.json", '{"markups": []}', "no point"),
        ("a.mrk.json", '{"markups": [{"coordinateSystem": "IJK", "controlPoints": [{"position": [1, 2, 3]}]}]}', "IJK"),
        ("a.mrk.json", '{"markups": [{"controlPoints": [{"position": [1, 2]}]}]}', "2 coordinates"),
        ("a.mrk.json", '{"markups": [{"controlPoints": [{"label": "a", "positionStatus": "undefined"}]}]}', "place"),
        ("a.fcsv", "# CoordinateSystem = 2\nid,1,2,3\n", "coordinate system '2'"),
        ("a.fcsv", "id,1,2,3\n", "coordinate system 'none'"),
        ("a.fcsv", "# CoordinateSystem = LPS\nid,1,2\n", "can't be read"),
        ("a.fcsv", "# CoordinateSystem = LPS\n", "no point"),
        ("a.vtk", VTK.replace("ASCII", "BINARY"), "ASCII"),
        ("a.vtk", VTK, "no POINTS"),
        ("a.vtk", VTK + "POINTS 0 float\n", "no point"),
        ("a.vtk", VTK + "POINTS 2 float\n1 2 3 4\n", "2 points announced, 4 of their 6"),
        ("a.vtk", VTK + "POINTS 2 float\n1 2 3 4\nLINES 1 2 3\n", "can't be read"),
    ],
)
def test_points_refused(tmp_path: Path, name: str, content: str, match: str) -> None:
    (tmp_path / name).write_text(content)
    refused(tmp_path / name, match, lambda path: read_points(path, 3))


def test_points_that_are_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "a.csv", "no such file", lambda path: read_points(path, 3), FileNotFoundError)
    (tmp_path / "b.csv").write_text("x,y,z\n1,2,3\n")
    refused(tmp_path / "b.csv", "3 coordinates, the images 2", lambda path: read_points(path, 2))


def test_points_need_names_and_axes() -> None:
    with pytest.raises(ValueError, match="as many names"):
        Points(np.ones((2, 3)), ["a"])
    with pytest.raises(ValueError, match=r"\(N, 2\) or \(N, 3\)"):
        Points(np.ones((2, 4)), ["a", "b"])


# --- inside the image --------------------------------------------------------------------------------------------


def test_points_inside() -> None:
    grid = grid_from(make_sitk(3, oblique(3)))
    voxels = np.array([[-0.5, 0, 0], [6.5, 5.5, 4.5], [6.6, 0, 0], [0, 0, -0.6]])
    world = grid.to_world(voxels)
    check_points_inside(Points(world[:2], ["a", "b"]), grid, "p.csv")
    with pytest.raises(ValueError, match=r"p.csv: 2 of 4 points lie off the image, first 'c'"):
        check_points_inside(Points(world, list("abcd")), grid, "p.csv")


def test_label_inside() -> None:
    grid = grid_from(make_sitk(3, oblique(3)))
    label = torch.zeros(1, *grid.shape, dtype=torch.int32)
    label[0, 6, 5, 4] = 3
    on = MetaTensor(label, affine=torch.from_numpy(grid.affine))
    check_label_inside(on, grid, "l.mha")
    away = grid.affine.copy()
    away[:3, 3] += grid.affine[:3, 0]
    with pytest.raises(ValueError, match=r"l.mha: lies off the image"):
        check_label_inside(MetaTensor(label, affine=torch.from_numpy(away)), grid, "l.mha")
    label[0, 0, 5, 4] = 1
    check_label_inside(MetaTensor(label, affine=torch.from_numpy(away)), grid, "l.mha")


# --- real images -------------------------------------------------------------------------------------------------


@pytest.mark.realdata
def test_camus_slice(real_data: Path) -> None:
    path = real_data / "camus/patient0001/patient0001_4CH_ES.mhd"
    assert_same(read_image(path), sitk.ReadImage(str(path)))
    label = read_label(path.with_name("patient0001_4CH_ES_gt.mhd"))
    assert label.unique().tolist() == [0, 1, 2, 3]
    check_label_inside(label, Grid.of(read_image(path)), "gt")


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["exhMaster_unmasked", "cyc_1_6", "cyc_1_9"])
def test_vtk_landmarks_lie_in_the_liver_mr(real_data: Path, name: str) -> None:
    folder = real_data / "eth_liver_4dmri/dataset19"
    path = folder / f"{name}.force_direction.mha"
    image = read_image(path)
    assert_same(image, sitk.ReadImage(str(path)))
    for part, count in (("liver", 36), ("outside", 20)):
        points = read_points(folder / f"{name.removesuffix('_unmasked')}LM{part}.vtk", 3)
        assert len(points.names) == count
        check_points_inside(points, Grid.of(image), part)
        with pytest.raises(ValueError, match="off the image"):
            check_points_inside(Points(points.positions * FLIP, points.names), Grid.of(image), part)


@pytest.mark.realdata
def test_chaos_series_agrees_with_its_own_reader(real_data: Path) -> None:
    case = real_data / "CHAOS/Train_Sets/CT/3"
    image, volume = read_image(case / "DICOM_anon"), read_chaos_case(case)
    assert Grid.of(image).matches(Grid(volume.image.shape, volume.affine))
    np.testing.assert_array_equal(image[0].numpy(), volume.image)


@pytest.mark.parametrize("kind", [np.uint8, np.int16])
def test_a_label_map_that_is_scaled_takes_single_precision(kind: type, tmp_path: Path) -> None:
    stored = np.arange(8 * 9 * 10).reshape(8, 9, 10) % np.iinfo(kind).max
    image = nib.Nifti1Image(stored.astype(kind), np.eye(4))
    image.header.set_slope_inter(257, 3)
    nib.save(image, tmp_path / "label.nii")
    assert torch.equal(read_label(tmp_path / "label.nii")[0].as_tensor(), torch.as_tensor(257 * stored + 3).int())
