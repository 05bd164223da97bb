"""The reader of CHAOS as downloaded, against the written volume and against ITK and SimpleITK."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from conftest import change_tags
from monai.transforms import LoadImage
from numpy.typing import NDArray
from PIL import Image

from fmirnet_monai.data import Volume, find_chaos_cases, phantom_volume, read_chaos_case, write_chaos_layout

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
SPACING = (12.0, 14.0, 9.5)  # all three differ, so that exchanged axes show
DEPTH = 12
SeriesWriter = Callable[..., list[Path]]


@pytest.fixture(scope="module")
def volume() -> Volume:
    made = phantom_volume("12", 3, (28, 20, DEPTH), SPACING)
    affine = made.affine.copy()
    affine[:3, 3] = (151.5, 120.25, -312.75)
    return Volume(made.subject, made.image, affine, made.label)


@pytest.fixture
def case(volume: Volume, tmp_path: Path) -> Path:
    folder = tmp_path / "Train_Sets" / "CT" / "12"
    write_chaos_layout(volume, folder)
    return folder


def dicom_files(case: Path) -> list[Path]:
    return sorted((case / "DICOM_anon").iterdir())


def mask_files(case: Path) -> list[Path]:
    return sorted((case / "Ground").iterdir())


def remaining_differences(read: Volume, written: Volume) -> None:
    assert written.label is not None and read.label is not None
    np.testing.assert_allclose(read.image, written.image, atol=0.5 + 1e-3)  # stored as whole numbers
    np.testing.assert_array_equal(read.label, written.label)
    np.testing.assert_allclose(read.affine, written.affine, atol=1e-4)


# --- what was written is read ------------------------------------------------------------------------------------


def test_written_phantom_is_read_back(case: Path, volume: Volume) -> None:
    read = read_chaos_case(case)
    remaining_differences(read, volume)
    assert read.image.shape == volume.image.shape
    assert read.subject == "chaos_ct_12"


def test_written_layout_holds_the_traps(case: Path) -> None:
    slices = [pydicom.dcmread(file) for file in dicom_files(case)]
    heights = [float(s.ImagePositionPatient[2]) for s in slices]
    assert [s.InstanceNumber for s in slices] == sorted(s.InstanceNumber for s in slices)
    assert heights == sorted(heights, reverse=True)
    assert all(abs(float(s.SliceThickness) - SPACING[2]) > 1 for s in slices)
    assert all(float(s.RescaleIntercept) != 0 for s in slices)


def test_slice_spacing_comes_from_the_positions(case: Path) -> None:
    for file in dicom_files(case):
        change_tags(file, SliceThickness=77.0, SpacingBetweenSlices=55.0)
    np.testing.assert_allclose(np.linalg.norm(read_chaos_case(case).affine[:3, :3], axis=0), SPACING, atol=1e-5)


def test_slices_run_from_foot_to_head(case: Path) -> None:
    read = read_chaos_case(case)
    assert read.affine[2, 2] > 0
    lowest = min((pydicom.dcmread(file) for file in dicom_files(case)), key=lambda s: float(s.ImagePositionPatient[2]))
    np.testing.assert_array_equal(read.image[..., 0], lowest.pixel_array.T.astype(float) - 1000)


def test_each_slice_has_its_own_slope_and_intercept(tmp_path: Path, write_series: SeriesWriter) -> None:
    stored = np.random.default_rng(0).integers(0, 2000, (9, 7, 4))
    rescale = [(1.0, 0.0), (2.0, -100.0), (0.5, 3.0), (1.0, -1024.0)]
    case = tmp_path / "CT" / "1"
    write_series(case / "DICOM_anon", stored, np.eye(4), rescale=rescale)
    expected = np.stack([stored[..., k] * slope + intercept for k, (slope, intercept) in enumerate(rescale)], -1)
    np.testing.assert_array_equal(read_chaos_case(case).image, expected)


def test_no_ground_folder_means_no_label(case: Path) -> None:
    shutil.rmtree(case / "Ground")
    assert read_chaos_case(case).label is None


def test_one_slice_is_a_volume_of_depth_one(case: Path, volume: Volume) -> None:
    for file in [*dicom_files(case)[1:], *mask_files(case)[1:]]:
        file.unlink()
    read = read_chaos_case(case)
    np.testing.assert_allclose(read.image[..., 0], volume.image[..., -1], atol=0.5 + 1e-3)
    np.testing.assert_allclose(read.affine[:3, 3], (volume.affine @ (0, 0, DEPTH - 1, 1))[:3], atol=1e-4)


# --- other readers -----------------------------------------------------------------------------------------------


def test_itk_reads_the_same_array_and_affine(case: Path) -> None:
    other = LoadImage(reader="ITKReader", image_only=True)(case / "DICOM_anon")
    read = read_chaos_case(case)
    np.testing.assert_array_equal(read.image, other.numpy())
    np.testing.assert_allclose(read.affine, other.affine, atol=1e-4)


def test_simpleitk_agrees_on_size_spacing_and_origin(case: Path) -> None:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(case / "DICOM_anon")))
    other = reader.Execute()
    read = read_chaos_case(case)
    lps = FLIP @ read.affine
    assert other.GetSize() == read.image.shape
    np.testing.assert_allclose(other.GetSpacing(), np.linalg.norm(lps[:3, :3], axis=0), atol=1e-4)
    np.testing.assert_allclose(other.GetOrigin(), lps[:3, 3], atol=1e-4)
    np.testing.assert_allclose(sitk.GetArrayFromImage(other).T, read.image)


def oblique(angles: tuple[float, float]) -> NDArray[np.floating]:
    (c, s), (d, t) = ((np.cos(a), np.sin(a)) for a in np.deg2rad(angles))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, d, -t], [0, t, d]])
    affine[:3, :3] *= (1.25, 1.5, 7.7)
    affine[:3, 3] = (-30.5, 12.0, 88.25)
    return affine


@pytest.mark.parametrize("angles", [(0, 0), (7, -12), (0, 90), (90, 90)], ids=str)
def test_any_orientation_as_itk(tmp_path: Path, write_series: SeriesWriter, angles: tuple[float, float]) -> None:
    case, affine = tmp_path / "CT" / "1", oblique(angles)
    stored = np.random.default_rng(1).integers(0, 900, (9, 7, 5))
    write_series(case / "DICOM_anon", stored, affine)
    read, other = read_chaos_case(case), LoadImage(reader="ITKReader", image_only=True)(case / "DICOM_anon")
    np.testing.assert_array_equal(read.image, other.numpy())
    np.testing.assert_allclose(read.affine, other.affine, atol=1e-4)
    np.testing.assert_allclose(read.affine, FLIP @ affine, atol=1e-4)


# --- masks and slices belong together by name --------------------------------------------------------------------


def test_pairing_survives_names_that_do_not_follow_the_position(case: Path, volume: Volume) -> None:
    order = list(range(DEPTH))
    random.Random(4).shuffle(order)
    assert order != sorted(order)
    for number, (file, mask) in zip(order, list(zip(dicom_files(case), mask_files(case), strict=True)), strict=True):
        file.rename(file.with_name(f"x{number:03d}.dcm"))
        mask.rename(mask.with_name(f"y{number:03d}.png"))
    remaining_differences(read_chaos_case(case), volume)


def test_numbers_in_names_count_as_numbers(case: Path, volume: Volume) -> None:
    for number, (file, mask) in enumerate(list(zip(dicom_files(case), mask_files(case), strict=True))):
        file.rename(file.with_name(f"slice_{number + 1}.dcm"))
        mask.rename(mask.with_name(f"mask_{number + 101:05d}.png"))
    assert sorted(p.name for p in dicom_files(case))[1] == "slice_10.dcm"  # plain order would put it second
    remaining_differences(read_chaos_case(case), volume)


def test_hidden_files_and_missing_suffixes(case: Path, volume: Volume) -> None:
    (case / "DICOM_anon" / "._i0000,0000b.dcm").write_bytes(b"junk of another file system")
    for file in [f for f in dicom_files(case) if not f.name.startswith(".")]:
        file.rename(file.with_suffix(""))
    remaining_differences(read_chaos_case(case), volume)


# --- MR ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def organs() -> NDArray[np.integer]:
    label = np.zeros((20, 16, 11), dtype=np.uint8)
    for organ in (1, 2, 3, 4):
        label[4 * organ - 2 : 4 * organ + 1, organ : organ + 6, organ : organ + 4] = organ
    return label


@pytest.fixture
def mr_root(tmp_path: Path, organs: NDArray[np.integer], write_series: SeriesWriter) -> Path:
    rng = np.random.default_rng(2)
    for number in (2, 10):
        for sequence, sub_folders in (("T2SPIR", ("",)), ("T1DUAL", ("InPhase", "OutPhase"))):
            case = tmp_path / "Train_Sets" / "MR" / str(number) / sequence
            names = [f"IMG-{k + 1}.dcm" for k in range(organs.shape[2])]
            for i, sub_folder in enumerate(sub_folders):
                image = rng.integers(0, 500, organs.shape) + 1000 * i
                write_series(case / "DICOM_anon" / sub_folder, image, oblique((2, -3)), names)
            (case / "Ground").mkdir()
            for k in range(organs.shape[2]):
                Image.fromarray((organs[..., k].T * 63).astype(np.uint8)).save(case / "Ground" / f"IMG-{k + 1}.png")
    return tmp_path


@pytest.mark.parametrize("modality", ["T2SPIR", "T1DUAL_in", "T1DUAL_out"])
def test_mr_labels_and_image(mr_root: Path, organs: NDArray[np.integer], modality: str) -> None:
    cases = find_chaos_cases(mr_root, modality)
    assert [case.parent.name for case in cases] == ["2", "10"]
    read = read_chaos_case(cases[0], modality)
    assert read.label is not None
    np.testing.assert_array_equal(read.label, organs)
    sub_folder = {"T1DUAL_in": "InPhase", "T1DUAL_out": "OutPhase"}.get(modality, "")
    other = LoadImage(reader="ITKReader", image_only=True)(cases[0] / "DICOM_anon" / sub_folder)
    np.testing.assert_array_equal(read.image, other.numpy())
    np.testing.assert_allclose(read.affine, other.affine, atol=1e-4)


def test_phases_of_t1dual_are_different_volumes_with_different_names(mr_root: Path) -> None:
    case = find_chaos_cases(mr_root, "T1DUAL_in")[0]
    inside, outside = (read_chaos_case(case, modality) for modality in ("T1DUAL_in", "T1DUAL_out"))
    assert inside.image.max() < 1000 <= outside.image.min()
    assert inside.subject != outside.subject


def test_label_id_keeps_one_organ(mr_root: Path, organs: NDArray[np.integer]) -> None:
    case = find_chaos_cases(mr_root, "T2SPIR")[0]
    read = read_chaos_case(case, "T2SPIR", label_id=3)
    assert read.label is not None
    np.testing.assert_array_equal(read.label, organs == 3)


def test_ct_and_mr_do_not_mix(mr_root: Path, volume: Volume) -> None:
    write_chaos_layout(volume, mr_root / "Train_Sets" / "CT" / "5")
    assert [case.name for case in find_chaos_cases(mr_root, "CT")] == ["5"]
    assert {case.name for case in find_chaos_cases(mr_root, "T2SPIR")} == {"T2SPIR"}


# --- finding cases -----------------------------------------------------------------------------------------------


def test_cases_in_natural_order_from_any_folder_above(case: Path) -> None:
    shutil.copytree(case, case.with_name("3"))
    root = case.parents[2]
    for folder in (root, root / "Train_Sets", case.parent):
        assert [found.name for found in find_chaos_cases(folder)] == ["3", "12"]
    assert find_chaos_cases(case) == [case.resolve()]


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"source_dir.*nowhere"):
        find_chaos_cases(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"nowhere"):
        read_chaos_case(tmp_path / "nowhere")


@pytest.mark.parametrize(("modality", "place"), [("CT", "CT/<id>"), ("T2SPIR", "MR/<id>/T2SPIR")])
def test_folder_without_a_case_says_what_is_expected(tmp_path: Path, modality: str, place: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"{tmp_path.name}.*expected.*{place}/DICOM_anon"):
        find_chaos_cases(tmp_path, modality)


@pytest.mark.parametrize("function", [find_chaos_cases, read_chaos_case])
def test_unknown_modality_names_those_there_are(case: Path, function: Callable) -> None:
    with pytest.raises(ValueError, match=r"modality must be one of.*T2SPIR.*'PET'"):
        function(case, "PET")


# --- broken cases: the message names the file and what to do -----------------------------------------------------


def test_no_dicom_slice(case: Path) -> None:
    for file in dicom_files(case):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"DICOM_anon: no DICOM slice \(\*\.dcm\)"):
        read_chaos_case(case)


@pytest.mark.parametrize("content", [b"<html>404 Not Found</html>" * 20, b""], ids=["text", "empty"])
def test_file_that_is_not_dicom(case: Path, content: bytes) -> None:
    dicom_files(case)[3].write_bytes(content)
    with pytest.raises(ValueError, match=r"i0003,0000b\.dcm: not a DICOM file; remove it or download"):
        read_chaos_case(case)


def test_file_cut_short(case: Path) -> None:
    file = dicom_files(case)[3]
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(ValueError, match=r"i0003,0000b\.dcm"):
        read_chaos_case(case)


def test_slice_without_pixels(case: Path) -> None:
    change_tags(dicom_files(case)[3], PixelData=None)
    with pytest.raises(ValueError, match=r"i0003,0000b\.dcm"):
        read_chaos_case(case)


@pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"])
def test_missing_tag(case: Path, tag: str) -> None:
    change_tags(dicom_files(case)[2], **{tag: None})
    with pytest.raises(ValueError, match=rf"i0002,0000b\.dcm: has no {tag}"):
        read_chaos_case(case)


@pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_tag_blanked_by_an_anonymiser(case: Path, tag: str) -> None:
    for file in dicom_files(case):
        change_tags(file, **{tag: ""})
    with pytest.raises(ValueError, match=rf"\.dcm: has no {tag}"):
        read_chaos_case(case)


def test_fewer_masks_than_slices(case: Path) -> None:
    mask_files(case)[4].unlink()
    with pytest.raises(ValueError, match=rf"Ground: {DEPTH - 1} masks.*{DEPTH} slices.*Unpack the set again"):
        read_chaos_case(case)


def test_mask_of_another_size(case: Path) -> None:
    Image.new("L", (20, 28)).save(mask_files(case)[4])  # rows and columns exchanged
    with pytest.raises(ValueError, match=r"liver_GT_004\.png: mask of \(28, 20\).*\(20, 28\)"):
        read_chaos_case(case)


def test_colour_mask(case: Path) -> None:
    Image.new("RGB", (28, 20)).save(mask_files(case)[4])
    with pytest.raises(ValueError, match=r"liver_GT_004\.png: mask of"):
        read_chaos_case(case)


def test_unreadable_mask(case: Path) -> None:
    mask_files(case)[4].write_bytes(b"no picture")
    with pytest.raises((ValueError, OSError), match=r"liver_GT_004\.png"):
        read_chaos_case(case)


def test_missing_slice_is_located(case: Path) -> None:
    for files in (dicom_files(case), mask_files(case)):
        files[5].unlink()
    pattern = r"not evenly spaced.*i000[46],0000b\.dcm and i000[46],0000b\.dcm.*missing or doubled"
    with pytest.raises(ValueError, match=pattern):
        read_chaos_case(case)


def test_doubled_slice_is_located(case: Path) -> None:
    for files in (dicom_files(case), mask_files(case)):
        shutil.copy(files[5], files[5].with_name("z" + files[5].name))
    with pytest.raises(ValueError, match=r"i0005,0000b\.dcm.*missing or doubled"):
        read_chaos_case(case)


def test_slices_of_different_size(case: Path) -> None:
    file = dicom_files(case)[6]
    change_tags(file, Rows=10, PixelData=pydicom.dcmread(file).PixelData[: 10 * 28 * 2])
    with pytest.raises(ValueError, match=r"i0006,0000b\.dcm: 10 x 28 pixels.*i0000,0000b\.dcm has 20 x 28"):
        read_chaos_case(case)


def test_infinite_intensities(case: Path) -> None:
    change_tags(dicom_files(case)[6], RescaleSlope="1e999")  # reads as infinity; times a stored 0 it is NaN
    with pytest.raises(ValueError, match=r"DICOM_anon.*NaN or infinite; replace them"):
        read_chaos_case(case)


def test_label_id_that_is_not_there(case: Path) -> None:
    with pytest.raises(ValueError, match=r"Ground: has no voxel of label_id 2; it holds \[0, 1\]"):
        read_chaos_case(case, label_id=2)


# --- the real set ------------------------------------------------------------------------------------------------


@pytest.mark.realdata
def test_real_ct_case(real_data: Path) -> None:
    case = find_chaos_cases(real_data / "CHAOS" / "Train_Sets" / "CT" / "3")[0]
    read = read_chaos_case(case)
    assert read.subject == "chaos_ct_3" and read.label is not None
    assert read.image.shape == (512, 512, 78)
    np.testing.assert_allclose(np.linalg.norm(read.affine[:3, :3], axis=0), (0.7265625, 0.7265625, 2.0), atol=1e-4)
    assert 80 < read.image[read.label == 1].mean() < 200  # liver in the portal venous phase
    png_pixels = sum(int((np.asarray(Image.open(file)) > 0).sum()) for file in (case / "Ground").glob("*.png"))
    assert read.label.sum() == png_pixels > 0
    other = LoadImage(reader="ITKReader", image_only=True)(case / "DICOM_anon")
    np.testing.assert_array_equal(read.image, other.numpy())
    np.testing.assert_allclose(read.affine, other.affine, atol=1e-3)
