"""SLIVER07 as downloaded: what is found, how it lies in space, and what is left out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from fmirnet_monai import cli
from fmirnet_monai.data import find_sliver_cases, load_pairs, phantom_volume, read_folder_case, write_phantom

SHAPE, SPACING = (14, 12, 10), (12.0, 14.0, 16.0)


@pytest.fixture
def sliver(tmp_path: Path) -> Path:
    return write_phantom(tmp_path / "sliver", subjects=3, shape=SHAPE, spacing=SPACING, seed=7, layout="sliver")


def test_volumes_are_those_that_were_written(sliver: Path) -> None:
    written = phantom_volume("2", 9, SHAPE, SPACING)
    read = read_folder_case(find_sliver_cases(sliver)[1])
    assert read.subject == "sliver_002" and written.label is not None and read.label is not None
    np.testing.assert_array_equal(read.image, np.rint(written.image))
    np.testing.assert_array_equal(read.label, written.label)
    np.testing.assert_allclose(read.affine, written.affine, atol=1e-5)
    assert sitk.ReadImage(str(sliver / "liver-orig002.mhd")).GetSpacing() == SPACING


def test_images_and_labels_may_lie_apart_and_scans_without_label_are_of_the_test_set(sliver: Path) -> None:
    (sliver / "label").mkdir()
    for file in sliver.glob("liver-seg00[13].*"):
        shutil.move(file, sliver / "label")
    for file in sliver.glob("liver-seg002.*"):
        file.unlink()
    assert [case.subject for case in find_sliver_cases(sliver)] == ["sliver_001", "sliver_003"]
    every = find_sliver_cases(sliver, labelled=False)
    assert [case.label is None for case in every] == [False, True, False]


def test_a_header_without_its_raw_file_is_named_and_left_out(
    sliver: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sliver / "liver-orig002.raw").unlink()
    words = [f"--source_dir={sliver}", f"--output_dir={tmp_path}/out", "--fractions=1,0,0"]
    cli.main(["prepare", "sliver", *words])
    printed = capsys.readouterr()
    assert "left out: " in printed.err and "liver-orig002.mhd" in printed.err
    assert printed.out.strip() == f"{tmp_path}/out/datalist.json (1 left out)"
    pairs = load_pairs(tmp_path / "out" / "datalist.json", "training")
    assert {tuple(pair["subject"]) for pair in pairs} == {("sliver_001", "sliver_003"), ("sliver_003", "sliver_001")}


def test_why_no_scan_can_be_read_is_said(sliver: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in sliver.rglob("*.raw"):
        file.unlink()
    with pytest.raises(SystemExit):
        cli.main(["prepare", "sliver", f"--source_dir={sliver}", f"--output_dir={tmp_path}/out"])
    assert "none of the 3 volumes can be read, the first: " in capsys.readouterr().err
    assert not (tmp_path / "out" / "datalist.json").exists()


def test_nothing_to_read_and_doubled_numbers_are_errors(sliver: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no liver-origNNN\.mhd"):
        find_sliver_cases(tmp_path / "nothing")
    shutil.copytree(sliver, sliver / "again")
    with pytest.raises(ValueError, match="keep one of them"):
        find_sliver_cases(sliver)


def test_a_layout_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layout must be chaos or sliver, got 'nifti'"):
        write_phantom(tmp_path / "out", layout="nifti")
    assert not (tmp_path / "out").exists()
