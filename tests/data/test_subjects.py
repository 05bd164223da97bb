"""One list of subjects for all: what it holds, that no table is measured on what its weights learnt from, prepare."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from commands import BUNDLES, REPOSITORY

from fmirnet_monai import cli
from fmirnet_monai.bundle import variant_file
from fmirnet_monai.data import (
    Pairing,
    chaos_subject,
    check_sections,
    find_camus_cases,
    find_chaos_cases,
    find_folder_cases,
    match_pairs,
    read_sections,
    split_pairs,
    write_echo_phantom,
    write_phantom,
)
from fmirnet_monai.data.pairing import SECTIONS
from fmirnet_monai.data.subjects import KNOWN
from fmirnet_monai.registration.method import BUNDLE_2D, NO_BUNDLE
from fmirnet_monai.study.methods import MethodSpec, read_tuned
from fmirnet_monai.study.segmentation import SegmentationMethod
from fmirnet_monai.study.study import PropagationStudy, RegistrationStudy, SegmentationStudy, Study

SETS = json.loads(KNOWN.read_text())
STUDIES = sorted((REPOSITORY / "benchmarks").glob("*.json"))
Subjects = set[tuple[str, str]]  # name of the set, name of the subject

every_study = pytest.mark.parametrize("file", STUDIES, ids=lambda path: path.stem)
every_bundle = pytest.mark.parametrize("bundle", sorted(BUNDLES.iterdir()), ids=lambda path: path.name)


# --- the list ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_every_subject_stands_in_one_section(name: str) -> None:
    assert list(SETS[name]) == list(SECTIONS)
    sections = read_sections(name)
    assert len(sections) == sum(map(len, SETS[name].values())) > 0
    for section, subjects in SETS[name].items():
        assert [subject for subject, own in sections.items() if own == section] == subjects == sorted(subjects)


def option(words: Sequence[str], name: str, default: str = "") -> str:
    return words[words.index(name) + 1] if name in words else default


@pytest.mark.realdata
def test_the_lists_name_exactly_the_subjects_that_the_readers_find(real_data: Path) -> None:
    found: dict[str, set[str]] = {}
    for words in (words for file in STUDIES for words in Study.read(file).prepare if "--sections" in words):
        source = option(words, "--source_dir").format(source=real_data)
        if words[1] == "folder":
            patterns = option(words, "--images", "image_*"), option(words, "--labels", "label_*")
            names = {case.subject for case in find_folder_cases(source, *patterns)}
        elif words[1] == "pairs":
            sides = {side: option(words, f"--{side}") for side in ("moving", "fixed")}
            names = {pair["subject"] for pair in match_pairs(source, sides)}
        elif words[1] == "camus":
            names = {case.subject for case in find_camus_cases(source)[0]}
        else:
            names = {chaos_subject(case) for case in find_chaos_cases(source)}
        assert found.setdefault(option(words, "--sections"), names) == names
    assert found == {name: set(read_sections(name)) for name in SETS}


# --- what is measured, and what the weights have seen ------------------------------------------------------------


def sets_of_datalists(prepare: Sequence[Sequence[str]]) -> dict[str, set[str]]:
    """The sets that each datalist is made of, by its path below the working folder."""
    found: dict[str, set[str]] = {}
    for words in prepare:
        if words[:2] == ["prepare", "merge"]:
            parts = option(words, "--datalists").replace("{work}/", "").split(",")
            found[option(words, "--output").removeprefix("{work}/")] = set().union(*(found[part] for part in parts))
        elif words[0] == "prepare":
            generated = "{work}" in option(words, "--source_dir")
            assert generated or option(words, "--sections") in SETS, f"takes its subjects from no list: {words}"
            own = set() if generated else {option(words, "--sections")}
            found[option(words, "--output_dir").removeprefix("{work}/") + "/datalist.json"] = own
    return found


def subjects_of(sets: set[str], *sections: str) -> Subjects:
    return {(name, subject) for name in sets for section in sections for subject in SETS[name][section]}


def seen_by_bundle(bundle: str) -> set[str]:
    return set(json.loads((BUNDLES / bundle / "configs" / "metadata.json").read_text())["trained_on"])


def seen_by_run(bundle: str, variant: str | None, sets: set[str]) -> set[str]:
    """The sets that a training run sees, and those of the weights it starts from."""
    config = variant_file(BUNDLES / bundle, variant).read_text() if variant else ""
    return sets.union(*(seen_by_bundle(start) for start in re.findall(r'"bundle_dir": "(\w+)"', config)))


def seen_and_measured(study: Study) -> tuple[set[str], Subjects, list[str]]:
    """The sets that the weights of any row have learnt from, the subjects measured, and the sections of these."""
    sets = sets_of_datalists(study.prepare)
    seen: set[str] = set()
    if isinstance(study, RegistrationStudy):
        tuned: dict[str, dict] = {}
        for name in [*study.borrowed, *([study.tuned] if study.tuned else [])]:
            tuned |= read_tuned(study.file.parent / name)
        own_bundle = study.context.get("bundle", "fmirnet_chaos")
        for row in study.methods:
            spec = MethodSpec(**{**row, "settings": {**tuned.get(row["name"], {}), **row.get("settings", {})}})
            bundle = spec.settings.get("bundle", own_bundle)
            if spec.learned:
                datalist = spec.settings.get("datalist", study.training_datalist or study.datalist)
                seen |= seen_by_run(bundle, spec.variant, sets[datalist])
            elif "weights" in spec.settings:
                assert spec.settings["weights"] == "bundle"
                seen |= seen_by_bundle(bundle)
        sections = [study.cases.get("section", "test")]
        measured = subjects_of(sets[study.datalist], *sections)
    elif isinstance(study, SegmentationStudy):
        rows = [SegmentationMethod(**row) for row in study.methods]
        seen = set().union(*(seen_by_run(row.bundle, row.variant, sets[row.datalist]) for row in rows))
        sections = [study.section]
        measured = set().union(*(subjects_of(sets[row.datalist], *sections) for row in rows))
    else:
        assert isinstance(study, PropagationStudy)
        for row in study.methods:
            default = BUNDLE_2D if row["name"] == "registration" else NO_BUNDLE
            bundle = row.get("settings", {}).get("bundle", default)
            seen |= set() if bundle == NO_BUNDLE else seen_by_bundle(bundle)
        sections = [group["section"] for group in study.volumes]
        pairs = zip(study.volumes, sections, strict=True)
        measured = set().union(*(subjects_of(sets[group["datalist"]], own) for group, own in pairs))
    return seen, measured, sections


@every_study
def test_no_subject_is_measured_by_weights_that_learnt_from_it(file: Path) -> None:
    """Nor is a test subject by weights that were chosen on it."""
    seen, measured, sections = seen_and_measured(Study.read(file))
    chosen = ("validation", "descent", "refinement", "table3_validation", "table6_landmarks")
    chosen += ("propagation_choices", "propagation_universal")
    validation = file.stem.startswith(chosen)  # studies that settings are chosen by
    assert measured and set(sections) == {"validation" if validation else "test"}
    assert not measured & subjects_of(seen, "training")
    if not validation:
        assert not measured & subjects_of(seen, "validation")


def test_the_test_above_would_see_it() -> None:
    study = Study.read(REPOSITORY / "benchmarks" / "table2.json")
    assert isinstance(study, RegistrationStudy)
    seen, measured, _ = seen_and_measured(replace(study, cases={"section": "training"}, methods=study.methods[-1:]))
    assert ("btcv", "00") in measured & subjects_of(seen, "training")
    unlisted = [["prepare", "folder", "--source_dir", "{source}/btcv_ct", "--output_dir", "{work}/a"]]
    with pytest.raises(AssertionError, match="from no list"):
        seen_and_measured(replace(study, prepare=unlisted))


def test_generated_clips_are_the_only_data_without_a_list() -> None:
    echo = json.loads((REPOSITORY / "benchmarks" / "data" / "echo.json").read_text())
    assert sets_of_datalists(echo["prepare"])["echo/datalist.json"] == seen_by_bundle("fmirnet_echonet")


@every_bundle
def test_the_page_prepares_the_sets_that_the_weights_saw(bundle: Path) -> None:
    page = (bundle / "docs" / "README.md").read_text()
    assert set(re.findall(r"--sections (\w+)", page)) == seen_by_bundle(bundle.name) <= set(SETS)


# --- a user's own list -------------------------------------------------------------------------------------------


def test_own_file(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"test": ["b"], "training": ["c", "a"]}')
    assert read_sections(tmp_path / "mine.json") == {"b": "test", "c": "training", "a": "training"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"training": ["a", "b", "a"]}', "names subject a twice, in training and in training"),
        ('{"training": ["a"], "test": ["b", "a"]}', "names subject a twice, in training and in test"),
        ('{"train": ["a"]}', "unknown section 'train'; there are training, validation, test"),
        ('{"test": "01"}', r"test must be a list of names in quotes, such as"),
        ('{"test": [1, 2]}', r"test must be a list of names in quotes, such as"),
        ('["a"]', "expected an object with lists of subjects under training, validation, test"),
        ("{}", "expected an object with lists of subjects under training, validation, test"),
        ('{"test": [', "not valid JSON"),
    ],
)
def test_wrong_file(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(ValueError, match=rf"mine\.json: {message}"):
        read_sections(tmp_path / "mine.json")


@pytest.mark.parametrize("name", ["btvc", "none.json"])
def test_neither_a_known_set_nor_a_file(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"sections: {name} is no file, and none of the known sets acdc, btcv"):
        read_sections(name)


def test_sections_in_pairing() -> None:
    pairs = [{"subject": ["a", "b"]}, {"subject": ["a", "c"]}, {"subject": "c"}]
    pairing = Pairing(sections={"a": "test", "b": "test", "c": "validation"})
    assert split_pairs(pairs, pairing) == {"training": [], "validation": pairs[2:], "test": pairs[:1]}
    with pytest.raises(ValueError, match="sections: are of subjects, so split must be \"subject\", got 'pair'"):
        Pairing(split="pair", sections={})
    with pytest.raises(ValueError, match=r"sections: each must be one of training, validation, test, got \['tests'\]"):
        Pairing(sections={"a": "tests"})


# --- prepare -----------------------------------------------------------------------------------------------------


@pytest.fixture
def sources(raw_phantom: Path, tmp_path: Path) -> dict[str, list[str]]:
    """By command, the words that read a generated data set of a few subjects."""
    small = np.random.default_rng(0).integers(0, 9, (8, 7, 6)).astype(np.int16)

    def write(image: np.ndarray, name: str) -> None:
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(image, np.diag([4.0, 5.0, 6.0, 1.0])), path)

    for number in range(4):
        write(small + number, f"folder/image_{number}.nii.gz")
        write(small, f"pairs/{number}_moving.nii.gz")
        write(small, f"pairs/{number}_fixed.nii.gz")
    for number in range(2):
        for phase in ("ED", "ES"):
            write(small[..., number], f"camus/patient{number}/patient{number}_2CH_{phase}.nii.gz")
        (tmp_path / "raw" / "camus" / f"patient{number}" / "Info_2CH.cfg").touch()
    write_echo_phantom(tmp_path / "raw" / "echonet", subjects=2, frames=8)
    write_phantom(tmp_path / "raw" / "sliver", 2, (14, 12, 10), (12.0, 14.0, 16.0), layout="sliver")
    names = ("folder", "pairs", "camus", "echonet", "sliver")
    words = {name: [name, f"--source_dir={tmp_path}/raw/{name}"] for name in names}
    return {
        "chaos": ["chaos", f"--source_dir={raw_phantom}"],
        **words,
        "folder": [*words["folder"], "--labels="],
        "camus": [*words["camus"], "--views=2CH"],
    }


def prepare(words: Sequence[str], folder: Path, sections: dict[str, list[str]], *options: str) -> Path:
    (folder / "mine.json").write_text(json.dumps(sections))
    cli.main(["prepare", *words, f"--output_dir={folder}/out", f"--sections={folder}/mine.json", *options])
    return folder / "out" / "datalist.json"


COMMANDS = {
    "chaos": [f"chaos_ct_{number}" for number in range(1, 5)],
    "folder": list("0123"),
    "pairs": list("0123"),
    "camus": ["patient0", "patient1"],
    "echonet": None,
    "sliver": ["sliver_001", "sliver_002"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_subjects_go_where_the_list_says(
    sources: dict[str, list[str]], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = COMMANDS[name] or sorted(path.stem for path in (tmp_path / "raw" / "echonet").rglob("*.avi"))
    where = {"validation": names[:1], "test": names[1:]} if name != "sliver" else {"test": names}
    content = json.loads(prepare(sources[name], tmp_path, where).read_text())
    for section in SECTIONS:
        found = {subject for pair in content[section] for subject in np.atleast_1d(pair["subject"]).tolist()}
        assert found == set(where.get(section, []))
    assert content["sections"] == {subject: section for section, names in where.items() for subject in names}
    assert not {"seed", "fractions", "split"} & set(content)
    assert "sections" not in capsys.readouterr().err


def test_pairs_of_volumes_stay_within_a_section(sources: dict[str, list[str]], tmp_path: Path) -> None:
    where = {"training": ["2", "0"], "test": ["1", "3"]}
    content = json.loads(prepare(sources["folder"], tmp_path, where, "--spatial_dims=3").read_text())
    assert [pair["subject"] for pair in content["training"]] == [["0", "2"], ["2", "0"]]
    assert [pair["subject"] for pair in content["test"]] == [["1", "3"], ["3", "1"]]


def test_only_the_named_subjects_are_taken(
    sources: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = {"training": ["2", "0"], "test": ["1"], "validation": ["3"]}
    content = json.loads(prepare(sources["folder"], tmp_path, where, "--volumes", "--subjects=2,1").read_text())
    subjects = {section: {item["subject"] for item in content["volumes"].get(section, [])} for section in where}
    assert subjects == {"training": {"2"}, "test": {"1"}, "validation": set()}
    with pytest.raises(SystemExit):
        prepare(sources["folder"], tmp_path, where, "--subjects=9")
    assert "subjects: there is no 9 among the 4; the first is 0." in capsys.readouterr().err


def test_listed_subjects_that_are_absent_are_said(
    sources: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    datalist = prepare(sources["folder"], tmp_path, {"training": ["0", "4", "1"], "test": ["2", "3", "5"]})
    printed = capsys.readouterr()
    absent = f"sections: 2 of 6 subjects of {tmp_path}/mine.json are not in the data, the first 4.\n"
    assert absent in printed.err and printed.out.strip() == str(datalist)


def test_a_datalist_of_other_sections_is_told_apart(sources: dict[str, list[str]], tmp_path: Path) -> None:
    where = {"training": ["2", "0"], "test": ["1", "3"]}
    datalist = prepare(sources["folder"], tmp_path, where, "--spatial_dims=3")
    sections = read_sections(tmp_path / "mine.json")
    check_sections(datalist, sections)
    for other, found in (({**sections, "3": "training"}, "training"), ({"0": "training", "2": "training"}, "none")):
        with pytest.raises(ValueError, match=rf"subject [13] is in 'test' here and in '{found}' of .*; remove "):
            check_sections(datalist, other)


def refusal(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main(["prepare", *words])
    printed = capsys.readouterr()
    assert end.value.code == 2 and not printed.out and printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_subject_that_is_not_listed_is_refused_before_anything_is_read(
    sources: dict[str, list[str]], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = refusal([*sources[name], f"--output_dir={tmp_path}/out", "--sections=btcv"], capsys)
    total = len(COMMANDS[name] or range(2))
    assert f"error: sections: {total} of {total} subjects of the data have none, the first " in found
    assert "name them in a JSON file of your own, or let sections be drawn by fractions." in found
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("drawn", "value"), [("--fractions", "0.7,0.2,0.1"), ("--seed", "0"), ("--split", "subject")])
@pytest.mark.parametrize("name", ["chaos", "folder", "pairs", "echonet", "camus"])
def test_either_a_list_or_a_draw(name: str, drawn: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = refusal([name, "--source_dir=a", "--output_dir=b", drawn, value, "--sections", "btcv"], capsys)
    assert f"give either --sections, which says where each subject stands, or {drawn}." in found
