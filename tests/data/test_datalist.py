"""The datalist read and joined: paths are right from wherever it lies, and faults are named."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fmirnet_monai.data import check_classes, common_folder, count_classes, has_labels, load_pairs, merge_datalists
from fmirnet_monai.data.datalist import PATH_KEYS
from fmirnet_monai.data.pairing import SECTIONS


def make_pair(folder: Path, subject: object, label: bool = True) -> dict[str, Any]:
    names = PATH_KEYS if label else PATH_KEYS[:2]
    pair = {name: f"slices/{subject}/{name}.nii.gz" for name in names}
    for file in pair.values():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(file)
    return {**pair, "subject": subject, "group": 0}


def make_datalist(folder: Path, **subjects: list[Any]) -> Path:
    """A datalist with one pair per subject in each section."""
    content = {section: [make_pair(folder, s) for s in subjects.get(section, [])] for section in SECTIONS}
    path = folder / "datalist.json"
    path.write_text(json.dumps({"name": "made by hand", **content}))
    return path


def edit(path: Path, section: str, number: int, **values: Any) -> None:
    content = json.loads(path.read_text())
    content[section][number].update(values)
    content[section][number] = {k: v for k, v in content[section][number].items() if v is not None}
    path.write_text(json.dumps(content))


# --- load --------------------------------------------------------------------------------------------------------


def test_paths_become_absolute_and_all_else_stays(tmp_path: Path) -> None:
    path = make_datalist(tmp_path / "x", training=["a", "b"])
    pairs = load_pairs(path, "training")
    assert [pair["subject"] for pair in pairs] == ["a", "b"] and all(pair["group"] == 0 for pair in pairs)
    for pair in pairs:
        assert {key: Path(pair[key]).read_text() for key in PATH_KEYS} == {
            key: f"slices/{pair['subject']}/{key}.nii.gz" for key in PATH_KEYS
        }


def test_paths_stay_valid_when_the_working_folder_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_datalist(tmp_path / "x", training=["a"])
    monkeypatch.chdir(tmp_path)
    pair = load_pairs("x/datalist.json", "training")[0]
    monkeypatch.chdir("/")
    assert all(Path(pair[key]).is_absolute() and Path(pair[key]).is_file() for key in PATH_KEYS)


def test_absolute_paths_and_missing_labels_are_fine(tmp_path: Path) -> None:
    path = make_datalist(tmp_path, training=["a"])
    fixed = str(tmp_path / "slices" / "a" / "fixed.nii.gz")
    edit(path, "training", 0, fixed=fixed, moving_label=None, fixed_label=None)
    pair = load_pairs(path, "training")[0]
    assert pair["fixed"] == fixed and "moving_label" not in pair and "fixed_label" not in pair


def test_pairs_have_labels_all_or_none(tmp_path: Path) -> None:
    path = make_datalist(tmp_path, training=["a", "b"], validation=["c"])
    assert has_labels(path, "training") and has_labels(path, "validation")
    edit(path, "validation", 0, moving_label=None)
    assert not has_labels(path, "validation")
    edit(path, "training", 1, moving_label=None, fixed_label=None)
    reason = r"datalist\.json: 1 of 2 pairs of 'training' have labels, that of .*b/moving\.nii\.gz does not; measure"
    with pytest.raises(ValueError, match=reason):
        has_labels(path, "training")


def test_no_datalist_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such datalist: .*none\.json; make one with .*prepare"):
        load_pairs(tmp_path / "none.json", "training")


@pytest.mark.parametrize("content", [b"", b"{'training': []}", b'{"training": [', b"\x1f\x8b\x08\x00\xff\xfe"])
def test_not_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "datalist.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"datalist\.json: not valid JSON"):
        load_pairs(path, "training")


def test_json_of_another_form(tmp_path: Path) -> None:
    path = tmp_path / "datalist.json"
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"datalist\.json: expected an object with the sections .*training.* got list"):
        load_pairs(path, "training")


@pytest.mark.parametrize("section", ["validation", "tests"])
def test_empty_or_unknown_section(tmp_path: Path, section: str) -> None:
    path = make_datalist(tmp_path, training=["a"])
    with pytest.raises(
        ValueError, match=rf"datalist\.json: the section '{section}' is empty; prepare more .*--fractions"
    ):
        load_pairs(path, section)


@pytest.mark.parametrize("key", ["moving", "fixed"])
def test_pair_without_an_image(tmp_path: Path, key: str) -> None:
    path = make_datalist(tmp_path, training=["a", "b"])
    edit(path, "training", 1, **{key: None})
    with pytest.raises(ValueError, match=r"datalist\.json: a pair of 'training' lacks 'moving' or 'fixed': .*'b'"):
        load_pairs(path, "training")


@pytest.mark.parametrize("key", PATH_KEYS)
def test_file_that_is_gone(tmp_path: Path, key: str) -> None:
    path = make_datalist(tmp_path, training=["a", "b"])
    (tmp_path / "slices" / "b" / f"{key}.nii.gz").unlink()
    pattern = rf"datalist\.json: names a file that does not exist: .*b/{key}\.nii\.gz; prepare the data"
    with pytest.raises(FileNotFoundError, match=pattern):
        load_pairs(path, "training")


# --- merge -------------------------------------------------------------------------------------------------------


def test_merge_keeps_sections_and_its_paths_hold_from_the_new_place(tmp_path: Path) -> None:
    lists = [
        make_datalist(tmp_path / "one", training=["a", "b"], validation=["c"], test=["d"]),
        make_datalist(tmp_path / "deep" / "two", training=["e"], validation=["f"], test=["g"]),
    ]
    output = merge_datalists(lists, tmp_path / "new" / "place" / "all.json")
    assert output == tmp_path / "new" / "place" / "all.json"
    expected = {"training": ["a", "b", "e"], "validation": ["c", "f"], "test": ["d", "g"]}
    content = json.loads(output.read_text())
    for section, subjects in expected.items():
        assert content[f"num_{section}"] == len(subjects)
        assert not any(os.path.isabs(pair[key]) for pair in content[section] for key in PATH_KEYS)
        sources = [pair for path in lists for pair in load_pairs(path, section)]
        for pair, source in zip(load_pairs(output, section), sources, strict=True):
            assert all(os.path.samefile(pair[key], source[key]) for key in PATH_KEYS)
            assert (pair["subject"], pair["group"]) == (source["subject"], source["group"])


def test_merged_pairs_have_one_set_of_keys(tmp_path: Path) -> None:
    lists = [make_datalist(tmp_path / name, training=[name], validation=[f"{name}2"]) for name in ("one", "two")]
    content = json.loads(lists[1].read_text())
    for section in ("training", "validation"):
        for pair in content[section]:
            del pair["group"]
    lists[1].write_text(json.dumps(content))
    merged = merge_datalists(lists, tmp_path / "all.json")
    pairs = load_pairs(merged, "training") + load_pairs(merged, "validation")
    assert len(pairs) == 4 and all(set(pair) == {*PATH_KEYS, "subject"} for pair in pairs)


def test_names_keep_two_people_of_one_name_apart_and_weights_are_shared(tmp_path: Path) -> None:
    lists = [
        make_datalist(tmp_path / "one", training=["01", "02"], validation=["03"]),
        make_datalist(tmp_path / "two", training=[["03", "04"]], test=["01"]),
    ]
    with pytest.raises(ValueError, match=r"subject 0[13] is in"):
        merge_datalists(lists, tmp_path / "all.json")
    output = merge_datalists(lists, tmp_path / "all.json", names=["ct", "mr"], weights=[1.0, 3.0])
    training = load_pairs(output, "training")
    assert [pair["subject"] for pair in training] == ["ct_01", "ct_02", ["mr_03", "mr_04"]]
    assert [pair["weight"] for pair in training] == [0.5, 0.5, 3.0]
    assert [pair["subject"] for pair in load_pairs(output, "test")] == ["mr_01"]
    assert "weight" not in load_pairs(output, "validation")[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"names": ["a"]}, "names.*2 datalists.*1"), ({"weights": [1, 2, 3]}, "weights.*3"), ({"weights": [1, -1]}, "-1")],
)
def test_names_and_weights_of_another_number_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    lists = [make_datalist(tmp_path / name, training=[name]) for name in ("one", "two")]
    with pytest.raises(ValueError, match=message):
        merge_datalists(lists, tmp_path / "all.json", **options)
    assert not (tmp_path / "all.json").exists()


def test_merged_folder_can_be_moved_as_a_whole(tmp_path: Path) -> None:
    lists = [make_datalist(tmp_path / "old" / name, training=[name]) for name in ("one", "two")]
    merge_datalists(lists, tmp_path / "old" / "all.json")
    (tmp_path / "old").rename(tmp_path / "moved")
    assert len(load_pairs(tmp_path / "moved" / "all.json", "training")) == 2


def test_merge_with_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        make_datalist(tmp_path / name, training=[name])
    monkeypatch.chdir(tmp_path)
    merge_datalists(["one/datalist.json", "two/datalist.json"], "all.json")
    assert len(load_pairs(tmp_path / "all.json", "training")) == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"training": ["a"]}, {"test": ["a"]}),
        ({"training": [["a", "b"]]}, {"validation": [["b", "a"]]}),
        ({"training": [["a", "b"]]}, {"test": [["c", "a"]]}),
    ],
    ids=["slices", "volumes in another order", "volumes that share one subject"],
)
def test_subject_in_two_sections_is_refused(tmp_path: Path, first: dict, second: dict) -> None:
    lists = [make_datalist(tmp_path / "one", **first), make_datalist(tmp_path / "two", **second)]
    with pytest.raises(ValueError, match=r"two/datalist\.json: subject .*[ab].* is in .* elsewhere; prepare all with"):
        merge_datalists(lists, tmp_path / "all.json")
    assert not (tmp_path / "all.json").exists()


def test_pairs_without_a_subject_do_not_conflict(tmp_path: Path) -> None:
    path = make_datalist(tmp_path, training=["a"], test=["b"])
    for section in ("training", "test"):
        edit(path, section, 0, subject=None)
    output = merge_datalists([path], tmp_path / "all.json")
    assert len(load_pairs(output, "training")) == len(load_pairs(output, "test")) == 1


def test_existing_output_is_refused_and_kept(tmp_path: Path) -> None:
    path, output = make_datalist(tmp_path, training=["a"]), tmp_path / "all.json"
    output.write_text("mine")
    with pytest.raises(FileExistsError, match=r"output: .*all\.json exists; give another name or remove it"):
        merge_datalists([path], output)
    assert output.read_text() == "mine"


def test_merge_names_the_datalist_that_is_missing_or_broken(tmp_path: Path) -> None:
    good = make_datalist(tmp_path, training=["a"])
    with pytest.raises(FileNotFoundError, match=r"no such datalist: .*none\.json"):
        merge_datalists([good, tmp_path / "none.json"], tmp_path / "all.json")
    (tmp_path / "bad.json").write_text("[")
    with pytest.raises(ValueError, match=r"bad\.json: not valid JSON"):
        merge_datalists([good, tmp_path / "bad.json"], tmp_path / "all.json")
    assert not (tmp_path / "all.json").exists()


# --- common folder -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subjects", [["a"], ["a", "b"], ["a", "b", "ab"]])
def test_common_folder_holds_all_fixed_images(tmp_path: Path, subjects: list[str]) -> None:
    pairs = load_pairs(make_datalist(tmp_path, training=subjects), "training")
    folder = Path(common_folder(pairs))
    assert folder.is_dir() and tmp_path in (folder, *folder.parents)
    assert all(folder in Path(pair["fixed"]).parents for pair in pairs)
    assert re.fullmatch(re.escape(str(folder)), common_folder(pairs[::-1]))


# --- classes -----------------------------------------------------------------------------------------------------


def labelled(folder: Path, *labels: int) -> Path:
    """A datalist of which each section's label maps hold one of the labels."""
    content: dict[str, list[Any]] = {section: [] for section in SECTIONS}
    folder.mkdir()
    for number, label in enumerate(labels):
        nib.save(nib.Nifti1Image(np.diag([0, label]).astype(np.int32), np.eye(4)), folder / f"{number}.nii.gz")
        content[SECTIONS[number % 3]].append({"moving_label": f"{number}.nii.gz", "fixed_label": "0.nii.gz"})
    path = folder / "datalist.json"
    path.write_text(json.dumps(content))
    return path


def test_classes_are_those_of_all_sections_and_datalists(tmp_path: Path) -> None:
    one, other = labelled(tmp_path / "one", 1, 4, 2), labelled(tmp_path / "other", 1, 1, 1, 7)
    assert count_classes(one) == 5 and count_classes(one, other) == count_classes(other, one) == 8
    assert count_classes(labelled(tmp_path / "empty", 0)) == count_classes(labelled(tmp_path / "none")) == 2
    check_classes(8, one, other)
    with pytest.raises(ValueError, match=r"num_classes: .*labels up to 7; give --num_classes 8"):
        check_classes(5, one, other)


def test_a_label_that_is_no_class_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1\.nii\.gz: has the label 1000; renumber"):
        count_classes(labelled(tmp_path / "one", 1, 1000))


def test_classes_of_whole_volumes_count_too(tmp_path: Path) -> None:
    path = labelled(tmp_path / "one", 1, 3)
    path.write_text(json.dumps({"volumes": {"test": [{"image": "x.nii.gz", "label": "1.nii.gz"}]}}))
    assert count_classes(path) == 4
