"""A user's own volumes: every format gives the same volume, names and tables find the right files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from fmirnet_monai.data import find_folder_cases, read_case_table, read_folder_case
from fmirnet_monai.data.folder import Case

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
SeriesWriter = Callable[..., list[Path]]


@pytest.fixture
def array() -> NDArray[np.integer]:
    return np.random.default_rng(0).integers(0, 1500, (12, 10, 7)).astype(np.int16)


@pytest.fixture
def affine() -> NDArray[np.floating]:
    """RAS affine of an oblique grid with three different spacings."""
    angle = np.deg2rad(8)
    result = np.eye(4)
    result[:3, :3] = [[-np.cos(angle), np.sin(angle), 0], [-np.sin(angle), -np.cos(angle), 0], [0, 0, 1]]
    result[:3, :3] *= (1.5, 2.0, 4.25)
    result[:3, 3] = (33.5, -20.25, 7.0)
    return result


def write_nifti(path: Path, data: NDArray, affine: NDArray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return path


def write_sitk(path: Path, data: NDArray, affine: NDArray) -> Path:
    lps = FLIP @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


# --- formats -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", "DICOM folder"])
def test_every_format_gives_the_same_volume(
    tmp_path: Path, array: NDArray, affine: NDArray, write_series: SeriesWriter, form: str
) -> None:
    path = tmp_path / ("series" if form == "DICOM folder" else "volume" + form)
    if form == "DICOM folder":
        write_series(path, array, FLIP @ affine)
    elif form.startswith(".nii"):
        write_nifti(path, array, affine)
    else:
        write_sitk(path, array, affine)
    volume = read_folder_case(Case("a", path))
    np.testing.assert_array_equal(volume.image, array)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    assert volume.subject == "a" and volume.label is None


def test_label_of_another_format_than_the_image(tmp_path: Path, array: NDArray, affine: NDArray) -> None:
    organs = (array % 4).astype(np.uint8)
    case = Case("a", write_nifti(tmp_path / "i.nii.gz", array, affine), write_sitk(tmp_path / "l.nrrd", organs, affine))
    volume = read_folder_case(case)
    assert volume.label is not None
    np.testing.assert_array_equal(volume.label, organs)


def test_label_id_keeps_one_label_as_1(tmp_path: Path, array: NDArray) -> None:
    organs = (array % 5).astype(np.uint8)
    case = Case("a", write_nifti(tmp_path / "i.nii", array), write_nifti(tmp_path / "l.nii", organs))
    label = read_folder_case(case, label_id=3).label
    assert label is not None
    np.testing.assert_array_equal(label, organs == 3)


def test_labels_get_new_numbers_in_turn(tmp_path: Path, array: NDArray) -> None:
    organs = (array % 4).astype(np.uint8)
    case = Case("a", write_nifti(tmp_path / "i.nii", array), write_nifti(tmp_path / "l.nii", organs))
    label = read_folder_case(case, label_numbers=[6, 0, 2]).label
    assert label is not None
    np.testing.assert_array_equal(label, 6 * (organs == 1) + 2 * (organs == 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_numbers": [6, 2]}, r"l.nii has a label 3, but 2 numbers are given"),
        ({"label_numbers": [1, 2, 256]}, r"must lie in 0..255, got \[1, 2, 256\]"),
        ({"label_numbers": [1, 2, 3], "label_id": 1}, "either label_id or label_numbers"),
    ],
)
def test_wrong_label_numbers_are_told(tmp_path: Path, array: NDArray, options: dict, message: str) -> None:
    organs = (array % 4).astype(np.uint8)
    case = Case("a", write_nifti(tmp_path / "i.nii", array), write_nifti(tmp_path / "l.nii", organs))
    with pytest.raises(ValueError, match=message):
        read_folder_case(case, **options)


def test_large_label_numbers_are_not_folded_onto_others(tmp_path: Path, array: NDArray) -> None:
    """Atlases number beyond 255; 256 must not become background."""
    organs = np.where(array > 700, 256, 0).astype(np.int16)
    case = Case("a", write_nifti(tmp_path / "i.nii", array), write_nifti(tmp_path / "l.nii", organs))
    chosen = read_folder_case(case, label_id=256).label
    assert chosen is not None
    np.testing.assert_array_equal(chosen, organs == 256)
    try:
        label = read_folder_case(case).label
    except ValueError as error:
        assert "l.nii" in str(error)  # refused with the file's name is as good
    else:
        assert label is not None
        np.testing.assert_array_equal(label, organs)


def test_intensity_scale_comes_before_the_offset(tmp_path: Path, array: NDArray) -> None:
    case = Case("a", write_nifti(tmp_path / "i.nii", array))
    np.testing.assert_allclose(read_folder_case(case, None, 1.5, -125).image, array * 1.5 - 125, rtol=1e-6)


def test_percentiles_of_each_volume(tmp_path: Path, array: NDArray) -> None:
    case = Case("a", write_nifti(tmp_path / "i.nii", array))
    image = read_folder_case(case, percentiles=(5, 90)).image
    np.testing.assert_allclose(np.percentile(image, (5, 90)), (0, 1000), atol=1e-3)
    assert np.corrcoef(image.ravel(), array.ravel())[0, 1] == pytest.approx(1)


@pytest.mark.parametrize("wrong", [(5,), (90, 5), (-1, 50), (0, 101)])
def test_percentiles_that_make_no_sense(tmp_path: Path, array: NDArray, wrong: tuple[float, ...]) -> None:
    case = Case("a", write_nifti(tmp_path / "i.nii", array))
    with pytest.raises(ValueError, match="percentiles must be two rising numbers"):
        read_folder_case(case, percentiles=wrong)


def test_percentiles_of_an_image_that_is_almost_constant(tmp_path: Path, array: NDArray) -> None:
    flat = np.zeros_like(array)
    flat[0, 0, 0] = 1
    case = Case("a", write_nifti(tmp_path / "flat.nii", flat))
    with pytest.raises(ValueError, match=r"flat\.nii: its percentiles \(1, 50\) are one intensity, 0"):
        read_folder_case(case, percentiles=(1, 50))


# --- names -------------------------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_default_patterns_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{kind}_{n}.nii.gz" for kind in ("image", "label") for n in (10, 9, 1)), ".image_5", "notes.txt")
    cases = find_folder_cases(tmp_path)
    assert [case.subject for case in cases] == ["1", "9", "10"]
    assert all(case.label and case.label.name == case.image.name.replace("image", "label") for case in cases)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("imagesTr/*.nii.gz", "labelsTr/*.nii.gz"),
        ("case_*/image.nii.gz", "case_*/liver.nii.gz"),
        ("*_0000.nii.gz", "*.seg.nrrd"),
        ("ct (*).mha", "mask+*.mha"),
    ],
)
def test_star_stands_for_the_subject_and_all_else_for_itself(tmp_path: Path, images: str, labels: str) -> None:
    touch(tmp_path, *(p.replace("*", n) for p in (images, labels) for n in ("p2", "p10", "p1")))
    cases = find_folder_cases(tmp_path, images, labels)
    assert [case.subject for case in cases] == ["p1", "p2", "p10"]
    for case in cases:
        assert case.image == tmp_path / images.replace("*", case.subject)
        assert case.label == tmp_path / labels.replace("*", case.subject)


def test_dicom_series_folders_are_cases(tmp_path: Path, array: NDArray, write_series: SeriesWriter) -> None:
    for name in ("ct_b", "ct_a"):
        write_series(tmp_path / name, array, np.eye(4))
    assert [case.subject for case in find_folder_cases(tmp_path, "ct_*", "")] == ["a", "b"]


def test_no_labels_wanted(tmp_path: Path) -> None:
    touch(tmp_path, "image_1.mha", "label_1.mha")
    assert [case.label for case in find_folder_cases(tmp_path, labels="")] == [None]


def test_labels_without_an_image_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "image_1.nii", "label_1.nii", "label_2.nii")
    assert [case.subject for case in find_folder_cases(tmp_path)] == ["1"]


def test_two_images_of_one_subject_are_not_dropped_silently(tmp_path: Path) -> None:
    touch(tmp_path, "image_1.nii.gz", "image_1.mha", "label_1.nii.gz")
    with pytest.raises(ValueError, match=r"image_1"):
        find_folder_cases(tmp_path)


# --- tables ------------------------------------------------------------------------------------------------------


@pytest.fixture
def table_folder(tmp_path: Path) -> Path:
    touch(tmp_path, "scans/a.nii.gz", "scans/b.mha", "masks/a.nii.gz")
    return tmp_path


ROWS: list[dict[str, str | None]] = [
    {"image": "scans/a.nii.gz", "label": "masks/a.nii.gz", "subject": "007"},
    {"image": "scans/b.mha", "label": None, "subject": None},
]


def write_table(path: Path, rows: object) -> Path:
    if path.suffix == ".csv":
        assert isinstance(rows, list)
        columns = list(rows[0])
        lines = [",".join(columns), *(",".join(row[c] or "" for c in columns) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_table_with_relative_paths(table_folder: Path, suffix: str) -> None:
    cases = read_case_table(write_table(table_folder / f"t{suffix}", ROWS))
    assert cases == [
        Case("007", table_folder / "scans/a.nii.gz", table_folder / "masks/a.nii.gz"),
        Case("b", table_folder / "scans/b.mha"),
    ]


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_table_with_absolute_paths_from_elsewhere(table_folder: Path, suffix: str) -> None:
    (table_folder / "tables").mkdir()
    table = write_table(table_folder / f"tables/t{suffix}", [{"image": str(table_folder / "scans/b.mha")}])
    assert read_case_table(table) == [Case("b", table_folder / "scans/b.mha")]


def test_subject_may_be_a_number_in_json(table_folder: Path) -> None:
    rows = [{"image": "scans/a.nii.gz", "subject": 0}, {"image": "scans/b.mha", "subject": 1}]
    assert [case.subject for case in read_case_table(write_table(table_folder / "t.json", rows))] == ["0", "1"]


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        ([{"scan": "scans/b.mha"}], ValueError, r"t\.\w+: needs .* column 'image'"),
        ([{"image": "", "label": "masks/a.nii.gz"}], ValueError, r"t\.\w+: .*image"),
        ([{"image": "scans/c.mha"}], FileNotFoundError, r"t\.\w+: names a file that does not exist: .*scans/c\.mha"),
        ([{"image": "scans/b.mha", "label": "x.nii"}], FileNotFoundError, r"does not exist: .*x\.nii"),
        (
            [{"image": "scans/b.mha", "subject": "z"}] * 2,
            ValueError,
            r"more than once: \['z'\]; add a column 'subject'",
        ),
        ([{"image": "scans/a.nii.gz"}, {"image": "masks/a.nii.gz"}], ValueError, r"more than once: \['a'\]"),
    ],
)
def test_bad_table(table_folder: Path, suffix: str, rows: list, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        read_case_table(write_table(table_folder / f"t{suffix}", rows))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", ""),
        ("t.csv", "image,label\n"),
        ("t.json", ""),
        ("t.json", "[]"),
        ("t.json", "[{'image': 'single quotes'}]"),
        ("t.json", '{"image": "scans/b.mha"}'),
        ("t.json", '["scans/b.mha"]'),
        ("t.csv", b"\xff\xfe\x00image"),
    ],
)
def test_table_without_rows_or_of_another_form(table_folder: Path, name: str, text: str | bytes) -> None:
    (table_folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=name):
        read_case_table(table_folder / name)


def test_no_such_table(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"table: no such file: .*cases\.csv"):
        read_case_table(tmp_path / "cases.csv")


# --- errors of folders and files ---------------------------------------------------------------------------------


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"source_dir: no such folder: .*nowhere"):
        find_folder_cases(tmp_path / "nowhere")


def test_nothing_matches(tmp_path: Path) -> None:
    touch(tmp_path, "scan_1.nii")
    with pytest.raises(FileNotFoundError, match=rf"images: nothing in .*{tmp_path.name} matches 'image_\*'"):
        find_folder_cases(tmp_path)


@pytest.mark.parametrize(("images", "labels"), [("image", "label_*"), ("image_*", "label"), ("*/*.nii", "")])
def test_pattern_needs_one_star(tmp_path: Path, images: str, labels: str) -> None:
    touch(tmp_path, "image_1.nii", "image")
    with pytest.raises(ValueError, match=r"(images|labels): the pattern needs exactly one '\*'"):
        find_folder_cases(tmp_path, images, labels)


def test_image_without_label_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "image_1.nii", "image_2.nii", "label_1.nii")
    with pytest.raises(ValueError, match=r"1 of 2 images have no label .*image_2\.nii; add them, or pass an empty"):
        find_folder_cases(tmp_path)


@pytest.mark.parametrize("change", ["size", "origin", "spacing", "direction"])
def test_label_on_another_grid(tmp_path: Path, array: NDArray, affine: NDArray, change: str) -> None:
    organs, other = (array % 2).astype(np.uint8), affine.copy()
    if change == "size":
        organs = organs[:-1]
    elif change == "origin":
        other[1, 3] += 0.5
    elif change == "spacing":
        other[:3, 2] *= 1.1
    else:
        other[:3, 0] *= -1
    case = Case("a", write_nifti(tmp_path / "i.nii", array, affine), write_nifti(tmp_path / "l.nii", organs, other))
    with pytest.raises(ValueError, match=r"l\.nii: its grid is not that of i\.nii: .*resample the label"):
        read_folder_case(case)


def test_label_id_that_is_not_there(tmp_path: Path, array: NDArray) -> None:
    organs = (array % 3).astype(np.uint8)
    case = Case("a", write_nifti(tmp_path / "i.nii", array), write_nifti(tmp_path / "l.nii", organs))
    with pytest.raises(ValueError, match=r"l\.nii: has no voxel of label_id 6; it holds \[0, 1, 2\]"):
        read_folder_case(case, label_id=6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxel_that_is_not_finite(tmp_path: Path, array: NDArray, value: float) -> None:
    bad = array.astype(np.float32)
    bad[3, 4, 5] = value
    with pytest.raises(ValueError, match=rf"i\.nii: 1 of {bad.size} intensities are NaN or infinite; replace them"):
        read_folder_case(Case("a", write_nifti(tmp_path / "i.nii", bad)))


@pytest.mark.parametrize("name", ["i.nii.gz", "i.mha", "i.nrrd"])
def test_unreadable_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no image at all")
    with pytest.raises(ValueError, match=rf"{name}: can't be read as an image \(\S+"):
        read_folder_case(Case("a", tmp_path / name))


def test_file_cut_short(tmp_path: Path, array: NDArray) -> None:
    path = write_nifti(tmp_path / "i.nii.gz", array)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"i\.nii\.gz: can't be read"):
        read_folder_case(Case("a", path))


@pytest.mark.parametrize(
    ("shape", "message"), [((12, 10), "expected a volume of 3 axes"), ((12, 10, 7, 3), "has 4 axes")]
)
def test_not_a_volume(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    values = np.random.default_rng(0).random(shape, dtype=np.float32)
    path = write_nifti(tmp_path / "i.nii", values)
    with pytest.raises(ValueError, match=rf"i\.nii: {message}"):
        read_folder_case(Case("a", path))


# --- the real set ------------------------------------------------------------------------------------------------


@pytest.mark.realdata
def test_real_btcv_case(real_data: Path) -> None:
    cases = find_folder_cases(real_data / "btcv_ct")
    assert len(cases) == 20
    volume = read_folder_case(cases[0], label_id=6, intensity_scale=400 / 255, intensity_offset=-125)
    assert volume.label is not None
    stored, organs = nib.load(cases[0].image), nib.load(cases[0].label)
    np.testing.assert_allclose(volume.image, np.asarray(stored.dataobj) / 255 * 400 - 125, atol=1e-3)
    np.testing.assert_array_equal(volume.label == 1, np.asarray(organs.dataobj) == 6)
    np.testing.assert_allclose(volume.affine, stored.affine, atol=1e-4)
    assert volume.image.min() == pytest.approx(-125, abs=1e-3) and volume.image.max() == pytest.approx(275, abs=1e-3)
    assert 60 < volume.image[volume.label == 1].mean() < 200
