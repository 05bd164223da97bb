"""Echocardiograms as downloaded: clips and tables of EchoNet, images of CAMUS, and what is wrong in them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from skimage.draw import polygon

from fmirnet_monai import cli
from fmirnet_monai.data import (
    Pairing,
    find_camus_cases,
    find_echonet_cases,
    load_pairs,
    phantom_clip,
    read_clip,
    read_echo_case,
    write_clip,
    write_echo_pairs,
    write_echo_phantom,
)
from fmirnet_monai.data.echo import EchoCase, most_different_frames


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_echo_phantom(tmp_path_factory.mktemp("echonet"), subjects=5, frames=12, seed=3)


@pytest.fixture
def echonet(generated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(generated, tmp_path / "EchoNet-Dynamic"))


def test_clip_is_decoded_as_it_was_written(tmp_path: Path) -> None:
    clip, _ = phantom_clip(1, frames=6)
    write_clip(clip, tmp_path / "a.avi")
    read = read_clip(tmp_path / "a.avi")
    assert read.shape == clip.shape == (6, 112, 112)
    assert np.abs(read.astype(float) - clip).mean() < 3  # JPEG
    right, turned = (np.corrcoef(k.ravel(), clip[2].ravel())[0, 1] for k in (read[2], read[2].T))
    assert right > 0.99 > turned


def test_frames_and_outlines_are_those_of_the_tracings(echonet: Path) -> None:
    cases, remarks = find_echonet_cases(echonet)
    assert len(cases) == 5 and remarks == []
    rows = pd.read_csv(echonet / "VolumeTracings.csv")
    rows = rows[rows["FileName"] == f"{cases[1].subject}.avi"]
    frames = read_echo_case(cases[1])
    assert frames.image.shape == (112, 112, 2) and frames.label is not None
    areas = frames.label.sum((0, 1))
    assert areas[0] > 1.2 * areas[1] > 0  # the larger one is end-diastole
    for k, number in enumerate(cases[1].frames or ()):
        part = rows[rows["Frame"] == number].iloc[1:]
        x = [*part["X1"], *part["X2"][::-1]]
        y = [*part["Y1"], *part["Y2"][::-1]]
        truth = np.zeros((112, 112), bool)
        truth[polygon(x, y, truth.shape)] = True
        found = frames.label[..., k] > 0
        assert 2 * (truth & found).sum() / (truth.sum() + found.sum()) > 0.95
        np.testing.assert_array_equal(frames.image[..., k], read_clip(cases[1].files[0])[number])
        picture = frames.image[..., k]
        assert picture[found].mean() < 0.6 * picture[~found & (picture > 0)].mean()


def test_without_tables_the_two_frames_that_differ_most_are_taken(echonet: Path) -> None:
    traced = find_echonet_cases(echonet)[0]
    (echonet / "VolumeTracings.csv").unlink()
    cases, remarks = find_echonet_cases(echonet)
    assert [case.frames for case in cases] == [None] * 5
    assert len(remarks) == 1 and "neither VolumeTracings.csv nor MeasurementsList.csv" in remarks[0]
    frames = read_echo_case(cases[0])
    assert frames.label is None
    found, known = most_different_frames(read_clip(cases[0].files[0])), traced[0].frames
    assert known is not None and all(abs(a - b) % 11 <= 1 for a, b in zip(found, sorted(known), strict=True))


def test_most_different_frames_of_a_clip_that_is_known() -> None:
    clip = np.full((9, 40, 50), 100, np.uint8)
    clip[2, :20] = 20
    clip[7, :20] = 220
    assert most_different_frames(clip) == (2, 7)


def test_echonet_lvh_gives_frames_and_spacing(generated: Path, tmp_path: Path) -> None:
    source = next((generated / "Videos").glob("*.avi"))
    (tmp_path / "Batch1").mkdir()
    shutil.copy(source, tmp_path / "Batch1" / "0XA.avi")
    shutil.copy(source, tmp_path / "Batch1" / "0XB.avi")
    head = ["HashedFileName", "Calc", "CalcValue", "Frame", "X1", "X2", "Y1", "Y2"]
    caliper = ["LVIDd", 4.5, 3, 10, 40, 20, 60]
    rows = [["0XA", *caliper], ["0XA", "IVSd", 1, 3, 0, 1, 0, 1], ["0XA", "LVIDs", 3, 8, 1, 2, 3, 4]]
    rows += [
        ["0XB", *caliper],
        ["0XB", "LVIDs", 3, "", 1, 2, 3, 4],
        ["0XB", "LVIDs", 3, "nan", 1, 2, 3, 4],
        ["0XC", *caliper],
    ]
    with (tmp_path / "MeasurementsList.csv").open("w") as file:
        csv.writer(file).writerows([head, *rows])
    cases, remarks = find_echonet_cases(tmp_path)
    assert [case.subject for case in cases] == ["0XA", "0XB"]
    assert cases[0].frames == (3, 8) and cases[0].spacing == pytest.approx(45 / 50)
    assert cases[1].frames is None
    columns = "HashedFileName, Calc, CalcValue, Frame, X1, X2, Y1, Y2"
    lacking = f"2 rows lack one of {columns}, the first is row 5, of 0XB."
    assert len(remarks) == 2 and remarks[0] == f"{tmp_path / 'MeasurementsList.csv'}: {lacking}"
    assert "1 clips" in remarks[1] and "0XC.avi" in remarks[1]
    frames = read_echo_case(cases[0])
    assert np.linalg.norm(frames.affine[:3, 0]) == pytest.approx(0.9)


def test_what_cannot_be_read_is_left_out_and_named(echonet: Path, tmp_path: Path) -> None:
    clips = sorted((echonet / "Videos").glob("*.avi"))
    clips[0].write_bytes(b"no film")
    clips[1].write_bytes(clips[1].read_bytes()[:9000])
    table = pd.read_csv(echonet / "VolumeTracings.csv")
    own = table["FileName"] == clips[2].name
    table.loc[own & (table["Frame"] == table[own]["Frame"].max()), "Frame"] = 400
    table.to_csv(echonet / "VolumeTracings.csv", index=False)
    cases, _ = find_echonet_cases(echonet)
    datalist, left_out = write_echo_pairs(cases, tmp_path / "out", Pairing(fractions=(0.5, 0.5, 0)), "EchoNet")
    assert len(left_out) == 3
    assert str(clips[0]) in left_out[0] and "can't be decoded" in left_out[0]
    assert str(clips[1]) in left_out[1] and "decoded" in left_out[1]
    assert left_out[2] == f"{clips[2]}: frame 400 is asked for, the clip has 12."
    pairs = [*load_pairs(datalist, "training"), *load_pairs(datalist, "validation")]
    assert {pair["subject"] for pair in pairs} == {clip.stem for clip in clips[3:]}
    label = nib.load(pairs[0]["moving_label"]).get_fdata()
    assert nib.load(pairs[0]["moving"]).shape == label.shape == (112, 112) and label.any()


def test_commands_from_generated_clips_to_a_datalist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["phantom", "echonet", f"--output_dir={tmp_path}/raw", "--subjects=4", "--frames=8"])
    (tmp_path / "raw" / "Videos" / "0XPHANTOM0002.avi").write_bytes(b"no film")
    (tmp_path / "raw" / "VolumeTracings.csv").unlink()
    capsys.readouterr()
    words = [f"--source_dir={tmp_path}/raw", f"--output_dir={tmp_path}/out", "--fractions=0.6,0.2,0.2"]
    cli.main(["prepare", "echonet", *words])
    printed = capsys.readouterr()
    assert printed.out.strip() == f"{tmp_path}/out/datalist.json (1 left out)"
    assert "VolumeTracings.csv" in printed.err and "left out: " in printed.err and "0XPHANTOM0002.avi" in printed.err
    content = json.loads((tmp_path / "out" / "datalist.json").read_text())
    assert [content[f"num_{section}"] for section in ("training", "validation", "test")] == [1, 1, 1]
    assert len(content["left_out"]) == 1


def test_clips_without_a_whole_tracing_are_left_out_where_others_have_one(
    echonet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training refuses a datalist of which some pairs have labels and others none."""
    clips = sorted((echonet / "Videos").glob("*.avi"))
    table = pd.read_csv(echonet / "VolumeTracings.csv")
    of = [table["FileName"] == clip.name for clip in clips]
    second = of[1] & (table["Frame"] == table[of[1]]["Frame"].max())
    short = second & (table.index > table.index[second][0])  # the long axis alone is no outline
    table.loc[table.index[of[2]][3], "FileName"] = None
    table[~of[0] & ~short].to_csv(echonet / "VolumeTracings.csv", index=False)
    words = [f"--source_dir={echonet}", f"--output_dir={tmp_path}/out", "--fractions=0.6,0.2,0.2"]
    cli.main(["prepare", "echonet", *words])
    printed = capsys.readouterr()
    assert printed.out.strip() == f"{tmp_path}/out/datalist.json (2 left out)"
    for clip in clips[:2]:
        assert f"left out: {clip}: has no label of both frames, which other cases have." in printed.err
    assert "1 rows lack one of FileName, Frame, X1, Y1, X2, Y2, the first is row" in printed.err
    pairs = [
        p
        for section in ("training", "validation", "test")
        for p in load_pairs(f"{tmp_path}/out/datalist.json", section)
    ]
    assert len(pairs) == 3 and all("fixed_label" in pair for pair in pairs)


def test_a_second_clip_of_one_name_is_left_out_and_named(echonet: Path) -> None:
    first = next((echonet / "Videos").glob("*.avi"))
    (echonet / "copy").mkdir()
    shutil.copy(first, echonet / "copy")
    cases, remarks = find_echonet_cases(echonet)
    assert len(cases) == 5 and len(remarks) == 1
    assert first.name in remarks[0] and "has the same name" in remarks[0]


@pytest.fixture
def camus(tmp_path: Path) -> Path:
    """Training and test set, each with a patient0001 of its own and labels in the former alone."""
    for number, part in enumerate(("training", "testing")):
        patient = tmp_path / "camus" / part / "patient0001"
        patient.mkdir(parents=True)
        (patient / "Info_4CH.cfg").write_text("ED: 1\nES: 20\n")
        for k, phase in enumerate(("ED", "ES")):
            values = np.arange(20 * 24).reshape(20, 24) % 90 + 100 * number + 10 * k
            for end in ("", "_gt")[: 2 - number]:
                image = nib.Nifti1Image((values > 50 if end else values).astype(np.uint8), np.eye(4))
                nib.save(image, patient / f"patient0001_4CH_{phase}{end}.nii.gz")
    return tmp_path / "camus"


def test_camus_patients_of_one_name_are_told_apart(camus: Path, tmp_path: Path) -> None:
    cases, _ = find_camus_cases(camus, ["4CH"])
    assert {case.subject for case in cases} == {"testing_patient0001", "training_patient0001"}
    datalist, left_out = write_echo_pairs(cases, tmp_path / "out", Pairing(fractions=(1, 0, 0)), "CAMUS")
    assert left_out == []
    for pair in load_pairs(datalist, "training"):
        lowest = nib.load(pair["moving"]).get_fdata().min()
        assert lowest == (100 if pair["subject"].startswith("testing") else 0)
        assert ("moving_label" in pair) == pair["subject"].startswith("training")


def test_camus_image_of_several_frames_is_left_out_and_named(camus: Path, tmp_path: Path) -> None:
    file = camus / "testing" / "patient0001" / "patient0001_4CH_ES.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(20 * 24 * 3, dtype=np.int16).reshape(20, 24, 3), np.eye(4)), file)
    cases, _ = find_camus_cases(camus, ["4CH"])
    _, left_out = write_echo_pairs(cases, tmp_path / "out", Pairing(fractions=(1, 0, 0)), "CAMUS")
    assert left_out == [f"{file}: an image of one frame is expected, it has 3."]


def test_a_table_of_other_things_than_numbers_is_named(echonet: Path) -> None:
    table = echonet / "VolumeTracings.csv"
    table.write_text(table.read_text().replace(table.read_text().splitlines()[3].split(",")[1], "apex"))
    with pytest.raises(ValueError, match=r"VolumeTracings\.csv: Frame, X1, Y1, X2, Y2 must be numbers: .*apex"):
        find_echonet_cases(echonet)


def test_a_table_without_a_column_is_named(echonet: Path) -> None:
    table = echonet / "VolumeTracings.csv"
    pd.read_csv(table).drop(columns=["X2", "Frame"]).to_csv(table, index=False)
    with pytest.raises(ValueError, match=r"VolumeTracings\.csv: has no column Frame, X2; download it again"):
        find_echonet_cases(echonet)


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no clip"):
        find_echonet_cases(tmp_path)
    with pytest.raises(FileNotFoundError, match="no CAMUS patient"):
        find_camus_cases(tmp_path)
    (tmp_path / "a.avi").write_bytes(b"no film")
    with pytest.raises(ValueError, match=r"none of the 1 cases can be read, the first: .*a\.avi"):
        write_echo_pairs(find_echonet_cases(tmp_path)[0], tmp_path / "out", Pairing(), "EchoNet")
    assert not (tmp_path / "out" / "datalist.json").exists()
    with pytest.raises(FileNotFoundError, match=r"no such clip: .*b\.avi"):
        read_echo_case(EchoCase("b", (tmp_path / "b.avi",)))


@pytest.mark.realdata
def test_camus_in_both_formats(real_data: Path, tmp_path: Path) -> None:
    cases, remarks = find_camus_cases(real_data / "camus")
    assert [(case.subject, case.view) for case in cases] == [
        (f"patient000{n}", view) for n in (1, 2) for view in ("2CH", "4CH")
    ]
    assert remarks == []
    frames = read_echo_case(cases[0])
    raw = np.fromfile(cases[0].files[0].with_suffix(".raw"), np.uint8)
    np.testing.assert_array_equal(frames.image[..., 0].ravel(order="F"), raw)
    assert frames.label is not None and set(np.unique(frames.label)) == {0, 1, 2, 3}
    np.testing.assert_allclose(np.linalg.norm(frames.affine[:3, :2], axis=0), [0.308, 0.154], atol=1e-3)

    patient = tmp_path / "patient0001"
    patient.mkdir()
    (patient / "Info_2CH.cfg").write_text("ED: 1\nES: 20\n")
    for k, phase in enumerate(("ED", "ES")):
        for end, part in (("", frames.image), ("_gt", frames.label)):
            image = nib.Nifti1Image(part[..., k].astype(np.uint8), frames.affine)
            nib.save(image, patient / f"patient0001_2CH_{phase}{end}.nii.gz")
    again, remarks = find_camus_cases(tmp_path)
    assert len(again) == 1 and "has no patient0001_4CH_ED" in remarks[0]
    np.testing.assert_array_equal(read_echo_case(again[0]).image, frames.image)


@pytest.mark.realdata
def test_camus_image_without_its_raw_file_is_left_out(real_data: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(real_data / "camus", tmp_path / "camus"))
    (source / "patient0002" / "patient0002_4CH_ES.raw").unlink()
    cases, _ = find_camus_cases(source)
    datalist, left_out = write_echo_pairs(cases, tmp_path / "out", Pairing(fractions=(1, 0, 0)), "CAMUS")
    assert len(left_out) == 1 and "patient0002_4CH_ES.mhd" in left_out[0]
    assert len(load_pairs(datalist, "training")) == 3
