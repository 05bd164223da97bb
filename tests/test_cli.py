"""The commands from end to end on tiny data, and what wrong input comes to: one line, exit code 2, nothing written."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from commands import run
from monai.bundle import ConfigParser

from fmirnet_monai import cli, write_image
from fmirnet_monai.bundle import load_network, read_config
from fmirnet_monai.data import load_pairs
from fmirnet_monai.spatial import Grid

REPOSITORY = Path(__file__).parents[1]


def leaves(commands: Mapping[str, Any], words: tuple[str, ...] = ()) -> dict[tuple[str, ...], Callable]:
    """Every command by its words."""
    found: dict[tuple[str, ...], Callable] = {}
    for word, command in commands.items():
        name = (*words, word) if word != cli.OWN else words
        found |= leaves(command, name) if isinstance(command, dict) else {name: command}
    return found


COMMANDS = leaves(cli.COMMANDS)
EVERY_COMMAND = pytest.mark.parametrize("command", list(COMMANDS), ids=" ".join)
SMALL = ("--subjects", "1", "--shape", "8,8,3", "--spacing", "40,30,30")


def refused(words: Sequence[object], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail at once; its one line on stderr without the prefix."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == ""
    assert err.endswith("\n") and err.count("\n") == 1, err
    assert err.startswith("fmirnet: error: "), err
    return err.removeprefix("fmirnet: error: ").strip()


def printed_path(capsys: pytest.CaptureFixture[str]) -> Path:
    return Path(capsys.readouterr().out.strip())


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """Four labelled volumes of a user, stored as 8-bit windows."""
    folder = tmp_path / "own"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(4):
        for kind, data in (("image", rng.integers(0, 256, (12, 12, 10))), ("label", rng.integers(0, 3, (12, 12, 10)))):
            image = nib.Nifti1Image(data.astype(np.uint8), np.diag([5.0, 5.0, 5.0, 1.0]))
            nib.save(image, folder / f"{kind}_{n}.nii.gz")
    return folder


@pytest.fixture
def bundle_copy(tmp_path: Path) -> Path:
    shutil.copytree(REPOSITORY / "bundles" / "fmirnet_chaos" / "configs", tmp_path / "copy" / "configs")
    return tmp_path / "copy"


# --- end to end --------------------------------------------------------------------------------------------------


def test_phantom_then_prepare_chaos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    cli.main(["phantom", f"--output_dir={raw}", "--subjects=3", "--shape=32,28,12", "--spacing=12,12,12", "--seed=4"])
    assert printed_path(capsys) == raw
    assert len(list(raw.glob("Train_Sets/CT/*/DICOM_anon/*.dcm"))) == 3 * 12
    words = f"prepare chaos --source_dir {raw} --output_dir {out} --r 0.3 --fractions 0.4,0.3,0.3 --seed 1"
    cli.main(words.split())
    assert printed_path(capsys) == out / "datalist.json"
    content = json.loads((out / "datalist.json").read_text())
    assert (content["r"], content["seed"], content["fractions"]) == (0.3, 1, [0.4, 0.3, 0.3])
    for section in ("training", "validation", "test"):
        pairs = load_pairs(out / "datalist.json", section)
        assert len({pair["subject"] for pair in pairs}) == 1
        for pair in pairs:
            assert nib.load(pair["moving"]).shape == nib.load(pair["fixed_label"]).shape == (32, 28)


def test_prepare_folder_with_scale_offset_and_label(
    tmp_path: Path, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    cli.main(
        f"prepare folder --source_dir {own_folder} --output_dir {out} --images image_*.nii.gz --labels label_*.nii.gz "
        f"--label_id 2 --intensity_scale 1.5686 --intensity_offset -125 --min_label_area 0 --split pair".split()
    )
    assert printed_path(capsys) == out / "datalist.json"
    pairs = load_pairs(out / "datalist.json", "training")
    images = np.stack([nib.load(pair["fixed"]).get_fdata() for pair in pairs])
    labels = np.stack([nib.load(pair["fixed_label"]).get_fdata() for pair in pairs])
    assert -125 <= images.min() < -100 and 250 < images.max() <= 275
    assert set(np.unique(labels)) == {0, 1} and 0.25 < labels.mean() < 0.42  # one of three labels


def test_prepare_folder_with_percentiles(tmp_path: Path, own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "folder", "--source_dir", str(own_folder), "--output_dir", str(tmp_path / "out"), "--images",
             "image_*.nii.gz", "--labels", "label_*.nii.gz", "--percentiles", "0,100", "--split", "pair"]  # fmt: skip
    assert "give either --percentiles or" in refused([*words, "--intensity_scale", "2"], capsys)
    cli.main([*words, "--spatial_dims", "3", "--fractions", "1,0,0"])
    for pair in load_pairs(printed_path(capsys), "training"):
        image = nib.load(pair["fixed"]).get_fdata()
        assert image.min() == 0 and image.max() == 1000


def test_prepare_folder_from_a_table_in_3d(
    tmp_path: Path, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = own_folder / "cases.csv"
    table.write_text("image,subject\n" + "".join(f"image_{n}.nii.gz,patient{n}\n" for n in range(4)))
    words = f"prepare folder --table {table} --output_dir {tmp_path / 'out'} --spatial_dims 3 --fractions 1,0,0"
    cli.main(words.split())
    pairs = load_pairs(printed_path(capsys), "training")
    assert {tuple(pair["subject"]) for pair in pairs} == {
        (f"patient{m}", f"patient{f}") for m in range(4) for f in range(4) if m != f
    }
    assert not any("label" in key for key in pairs[0])


def test_empty_label_pattern_means_no_labels(
    tmp_path: Path, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", "folder", "--source_dir", str(own_folder), "--output_dir", str(tmp_path / "out")]
    cli.main([*words, "--labels", ""])
    assert not any("label" in key for key in load_pairs(printed_path(capsys), "training")[0])


@pytest.mark.parametrize("label_id", [None, 2])
def test_a_subject_without_the_structure_is_left_out_and_named(
    tmp_path: Path, own_folder: Path, capsys: pytest.CaptureFixture[str], label_id: int | None
) -> None:
    label = np.full((12, 12, 10), 0 if label_id is None else 1, np.uint8)
    nib.save(nib.Nifti1Image(label, np.diag([5.0, 5.0, 5.0, 1.0])), own_folder / "label_2.nii.gz")
    words = [f"--source_dir={own_folder}", f"--output_dir={tmp_path / 'out'}", "--r=0.5", "--fractions=0.4,0.3,0.3"]
    cli.main(["prepare", "folder", *words, *([f"--label_id={label_id}"] if label_id else [])])
    out, err = capsys.readouterr()
    assert out.strip() == f"{tmp_path / 'out' / 'datalist.json'} (1 left out)"
    assert re.search(r"left out: .*label_2\.nii\.gz: (all of it is background|has no voxel of label_id 2)", err)
    pairs = [
        pair
        for section in ("training", "validation", "test")
        for pair in load_pairs(tmp_path / "out" / "datalist.json", section)
    ]
    assert {pair["subject"] for pair in pairs} == {"0", "1", "3"}


def test_prepare_merge(
    small_sample: Path, tmp_path: Path, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["prepare", "folder", f"--source_dir={own_folder}", f"--output_dir={tmp_path / 'b'}"])
    lists, output = [small_sample / "datalist.json", tmp_path / "b" / "datalist.json"], tmp_path / "both.json"
    capsys.readouterr()
    cli.main(["prepare", "merge", "--datalists", ",".join(map(str, lists)), "--output", str(output)])
    assert printed_path(capsys) == output
    for section in ("training", "validation"):
        assert len(load_pairs(output, section)) == sum(len(load_pairs(path, section)) for path in lists)


def test_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fmirnet_monai", "--help"], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("fmirnet", "prepare", "phantom", "publish"))


# --- help --------------------------------------------------------------------------------------------------------


@EVERY_COMMAND
def test_help_explains_every_argument(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([*command, "--help"])
    text, complaints = capsys.readouterr()
    assert not complaints
    for name in inspect.signature(COMMANDS[command]).parameters:
        option = rf"(-\w, )?--{name}=\w+( \(required\))?"
        head = re.search(rf"^ {{4}}({option}|{name.upper()})$", text, re.MULTILINE)
        assert head, f"no entry for {name} in:\n{text}"
        entry = re.match(r"(\n {8}.*)*", text[head.end() :])
        assert entry
        explanation = [line.strip() for line in entry[0].splitlines() if not re.match(r" *(Type|Default):|$", line)]
        assert " ".join(explanation).strip(), f"{name} is not explained"
        kinds = "(text|true or false|number|whole number)(, …)?"
        assert re.search(rf"Type: {kinds}( or {kinds})?$", entry[0], re.MULTILINE), entry[0]


def test_groups_name_their_commands(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["prepare", "--help"])
    text, complaints = capsys.readouterr()
    assert all(word in text for word in ("chaos", "folder", "merge")) and not complaints


def test_help_says_what_a_group_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([])
    page = capsys.readouterr().out
    groups = [name for name, command in cli.COMMANDS.items() if isinstance(command, dict)]
    for name in groups:
        assert re.search(rf"^ +{name}\n +\w.*{list(cli.COMMANDS[name])[-1]}\.$", page, re.MULTILINE), name


# --- what is loaded ----------------------------------------------------------------------------------------------

HEAVY = {"torch", "numpy", "monai", "itk", "dask", "distributed"}
FOR_TRAINING = {
    "dask",
    "distributed",
    "monai",
    "ignite",
    "tensorboard",
    "matplotlib",
    "pandas",
    "sklearn",
    "skimage",
    "av",
}


def loaded_by(words: Sequence[str | Path], folder: Path) -> set[str]:
    """Top packages that a command line has loaded at its end."""
    file = folder / "loaded.json"
    code = f"""
import atexit, json, runpy, sys
atexit.register(lambda: open({str(file)!r}, "w").write(json.dumps([*sys.modules])))
sys.argv = {["fmirnet_monai", *map(str, words)]!r}
runpy.run_module("fmirnet_monai", run_name="__main__")
"""
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    return {name.split(".")[0] for name in json.loads(file.read_text())}


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["register", "--help"], ["prepare"], ["nothing"], ["warp", "--imag=x"], ["register"]],
    ids=" ".join,
)
def test_words_are_read_before_anything_heavy_is_loaded(tmp_path: Path, words: list[str]) -> None:
    assert not loaded_by(words, tmp_path) & HEAVY


def test_what_needs_no_monai_does_not_load_it(tmp_path: Path) -> None:
    for name, shift in (("moving", 2), ("fixed", 0)):
        image = torch.zeros(1, 48, 48)
        image[:, 12 + shift : 30 + shift, 15:35] = 1
        write_image(image, tmp_path / f"{name}.nii.gz", Grid((48, 48), np.eye(3)))
    images = [word for name in ("moving", "fixed") for word in (f"--{name}", tmp_path / f"{name}.nii.gz")]
    field, points = tmp_path / "out" / "displacement.nii.gz", tmp_path / "points.csv"
    points.write_text("x,y\n-20,-20\n")
    where = ["--transform", field, "--output"]
    for words in (
        ["register", *images, "--output_dir", tmp_path / "out", "--bundle", "none", "--report", "false"],
        ["warp", "--image", tmp_path / "moving.nii.gz", *where, tmp_path / "warped.nii.gz"],
        ["warp_points", "--points", points, *where, tmp_path / "warped.csv"],
        ["jacobian", *where, tmp_path / "jacobian.nii.gz"],
        ["invert", *where, tmp_path / "inverse.nii.gz"],
        ["compose", "--transforms", f"{field},{tmp_path / 'inverse.nii.gz'}", "--output", tmp_path / "whole.h5"],
    ):
        assert not loaded_by(words, tmp_path) & FOR_TRAINING, words[0]
    assert all((tmp_path / name).is_file() for name in ("warped.csv", "jacobian.nii.gz", "whole.h5"))


def test_short_option_that_help_shows_works(tmp_path: Path, raw_phantom: Path) -> None:
    words = ["prepare", "chaos", f"--source_dir={raw_phantom}", f"--output_dir={tmp_path}"]
    cli.main([*words, "-r", "0.5"])
    assert json.loads((tmp_path / "datalist.json").read_text())["r"] == 0.5


@pytest.mark.parametrize("joined", [True, False], ids=["=", "space"])
@pytest.mark.parametrize(
    "name",
    [
        "s#1",
        "2024_01_10",
        "1e5",
        "1_000",
        "0x1F",
        "1.50",
        "(a)",
        "[x]",
        "True",
        "None",
        "a,b",
        "{'a': 1}",
        '"q"',
        "1,2.0",
    ],
)
def test_a_folder_has_the_name_that_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, joined: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main(
        ["phantom", "echonet", "--subjects", "1", *([f"--output_dir={name}"] if joined else ["--output_dir", name])]
    )
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_lists_of_text_keep_what_was_typed(own_folder: Path, tmp_path: Path) -> None:
    cli.main(["prepare", "folder", f"--source_dir={own_folder}", f"--output_dir={tmp_path / 'a#1'}"])
    listed, output = tmp_path / "a#1" / "datalist.json", tmp_path / "both.json"
    cli.main(["prepare", "merge", f"--datalists={listed},{listed}", "--names", "1_0,02", f"--output={output}"])
    subjects = {pair["subject"] for pair in json.loads(output.read_text())["training"]}
    assert {name.rsplit("_", 1)[0] for name in subjects} == {"1_0", "02"}


def test_tilde_is_the_home_folder_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    cli.main(["phantom", "echonet", "--subjects=1", "--output_dir=~/a"])
    cli.main(["phantom", "echonet", "--subjects=1", "--output_dir=~no_user/b"])
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["a"]
    assert [str(path) for path in Path().glob("*/*")] == ["~no_user/b"]
    capsys.readouterr()
    both = "--transforms=~/c.nii.gz,~/d.nii.gz"
    assert str(tmp_path / "home" / "c.nii.gz") in refused(["compose", both, "--output=e.h5"], capsys)


# --- wrong words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "option", "meant"),
    [
        ("phantom", "--subject", "--subjects"),
        ("phantom", "--sed", "--seed"),
        ("prepare chaos", "--fraction", "--fractions"),
        ("prepare chaos", "--lable_id", "--label_id"),
        ("prepare folder", "--intensity-ofset", "--intensity_offset"),
        ("prepare merge", "--datalist", "--datalists"),
        ("publish", "--weight", "--weights"),
    ],
)
@pytest.mark.parametrize("joined", [True, False], ids=["=", "space"])
def test_misspelt_option_is_corrected_and_nothing_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, option: str, meant: str, joined: bool
) -> None:
    required = {
        "phantom": [f"--output_dir={tmp_path}/out", *SMALL],
        "prepare chaos": [f"--source_dir={tmp_path}", f"--output_dir={tmp_path}/out"],
        "prepare folder": [f"--source_dir={tmp_path}", f"--output_dir={tmp_path}/out"],
        "prepare merge": [f"--output={tmp_path}/out"],
        "publish": [f"--bundle_dir={tmp_path}/out"],
    }[command]
    wrong = [f"{option}=1"] if joined else [option, "1"]
    message = refused([*command.split(), *required, *wrong], capsys)
    assert re.search(rf"unknown option --{option[2:].replace('-', '_')}; did you mean {meant}\?", message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", ["-subjcts=2", "-z", "-z=1", "-seeed=1"])
def test_option_with_one_dash_that_is_unknown_does_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    refused(["phantom", f"--output_dir={tmp_path}/out", *SMALL, wrong], capsys)
    assert not list(tmp_path.iterdir())


def test_option_unlike_any_lists_those_there_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    message = refused(["phantom", "--output_dir", tmp_path / "out", "--verbose"], capsys)
    assert all(f"--{name}" in message for name in inspect.signature(cli.COMMANDS["phantom"][cli.OWN]).parameters)


def test_stray_word(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    message = refused(["phantom", "--output_dir", tmp_path / "out", *SMALL, "extra"], capsys)
    assert message == "unexpected word 'extra'; options are given as --name value."
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "known"), [("prepares", "prepare"), ("prepare chaoss", "chaos"), ("train", "phantom")]
)
def test_unknown_command(capsys: pytest.CaptureFixture[str], words: str, known: str) -> None:
    message = refused(words.split(), capsys)
    assert f"unknown command {words.rsplit(maxsplit=1)[-1]!r}" in message and known in message


@pytest.mark.parametrize("words", [["--output_dir", "x"], ["prepare", "--source_dir", "x", "--output_dir", "y"]])
def test_options_without_their_command(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert re.search(r"phantom|chaos", refused(words, capsys))


@pytest.mark.parametrize("command", [words for words in COMMANDS if words != ("demo",)], ids=" ".join)  # needs nothing
def test_missing_argument_is_named(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    needed = [p.name for p in inspect.signature(COMMANDS[command]).parameters.values() if p.default is p.empty]
    message = refused(command, capsys)
    assert not needed or any(name in message for name in needed)


# --- wrong values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--subjects=many", r"--subjects: expected a whole number, got 'many'"),
        ("--subjects=2.5", r"--subjects: expected a whole number, got 2\.5"),
        ("--seed=None", r"--seed: expected a whole number, got None"),
        ("--shape=8,8,x", r"--shape: expected a whole number, got 'x'"),
        ("--shape=8,8,2.5", r"--shape: expected a whole number, got 2\.5"),
        ("--shape=8,8", r"shape"),
        ("--spacing=40,thirty,30", r"--spacing: expected a number, got 'thirty'"),
        ("--subjects", r"--subjects: expected a whole number, got True"),
        ("--subjects=0", r"subjects"),
        ("--shape=8,8,0", r"shape"),
        ("--spacing=40,30,-1", r"spacing"),
    ],
)
def test_wrong_type_or_value_in_phantom(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str, message: str
) -> None:
    name = wrong.partition("=")[0]
    options = [w for k in range(0, len(SMALL), 2) if SMALL[k] != name for w in SMALL[k : k + 2]]
    assert re.search(message, refused(["phantom", f"--output_dir={tmp_path}/out", *options, wrong], capsys))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--r=1.5", r"r is the annotated fraction .*\(0, 1\], got 1\.5"),
        ("--r=many", r"--r: expected a number, got 'many'"),
        ("--fractions=0.7,0.2", r"fractions must be three numbers"),
        ("--fractions=7,2,1", r"fractions must be three numbers"),
        ("--fractions=a,b,c", r"--fractions: expected a number, got 'a'"),
        ("--split=subjects", r"split must be \"subject\" or \"pair\", got 'subjects'"),
        ("--spatial_dims=4", r"spatial_dims must be 2 or 3, got 4"),
        ("--modality=PET", r"modality must be one of .*T2SPIR.*'PET'"),
        ("--label_id=liver", r"--label_id: expected a whole number, got 'liver'"),
        ("--output_dir", r"--output_dir: expected text, got True"),
    ],
)
def test_wrong_value_in_prepare(
    raw_phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str, message: str
) -> None:
    words = ["prepare", "chaos", f"--source_dir={raw_phantom}", f"--output_dir={tmp_path}/out", wrong]
    assert re.match(message, refused(words, capsys))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        "prepare chaos --source_dir {gone} --output_dir {out}",
        "prepare folder --source_dir {gone} --output_dir {out}",
        "prepare folder --table {gone} --output_dir {out}",
        "prepare merge --datalists {gone} --output {out}",
        "publish --weights {gone} --bundle_dir bundles/fmirnet_chaos",
        "publish --weights {gone} --bundle_dir {gone}",
    ],
)
def test_missing_file_or_folder_is_named(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    gone, out = tmp_path / "gone", tmp_path / "out"
    assert str(gone) in refused(words.format(gone=gone, out=out).split(), capsys)
    assert not out.exists()


@pytest.mark.parametrize("sources", [(), ("--source_dir=a", "--table=b.csv")])
def test_folder_or_table_but_not_both(sources: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(["prepare", "folder", "--output_dir=out", *sources], capsys)
    assert message == "give either --source_dir or --table."


def test_existing_datalist_is_refused(
    small_sample: Path, raw_phantom: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (small_sample / "datalist.json").read_bytes()
    with pytest.raises(SystemExit) as stop:
        cli.main(["prepare", "chaos", f"--source_dir={raw_phantom}", f"--output_dir={small_sample}"])
    assert stop.value.code == 2 and "exists" in capsys.readouterr().err
    assert (small_sample / "datalist.json").read_bytes() == before


def test_label_id_reaches_the_reader(tmp_path: Path, raw_phantom: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "chaos", f"--source_dir={raw_phantom}", f"--output_dir={tmp_path / 'out'}", "--label_id=2"]
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2 and "has no voxel of label_id 2" in capsys.readouterr().err


def test_fault_in_the_middle_has_a_line_of_its_own(
    tmp_path: Path, raw_phantom: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind a progress bar the message must not stick to the bar."""
    shutil.copytree(raw_phantom, tmp_path / "raw")
    file = sorted((tmp_path / "raw").rglob("*.dcm"))[-1]
    data = pydicom.dcmread(file)
    data.RescaleSlope = "1e999"
    data.save_as(file)
    with pytest.raises(SystemExit) as stop:
        cli.main(["prepare", "chaos", f"--source_dir={tmp_path / 'raw'}", f"--output_dir={tmp_path / 'out'}"])
    lines = re.split(r"[\r\n]+", capsys.readouterr().err.strip())
    assert stop.value.code == 2 and not (tmp_path / "out" / "datalist.json").exists()
    messages = [line for line in lines if "error:" in line]
    assert len(messages) == 1 and "Traceback" not in lines
    assert re.match(r"fmirnet: error: .*DICOM_anon: .* NaN or infinite", messages[0])


# --- publish -----------------------------------------------------------------------------------------------------


def network_of(bundle: Path) -> torch.nn.Module:
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    network = parser.get_parsed_content("network_def")
    assert isinstance(network, torch.nn.Module)
    return network


def test_good_weights_land(tmp_path: Path, bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = network_of(bundle_copy)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-1, 1)
    torch.save(network.state_dict(), tmp_path / "run.pt")
    cli.main(["publish", f"--weights={tmp_path / 'run.pt'}", f"--bundle_dir={bundle_copy}"])
    target = printed_path(capsys)
    assert target == bundle_copy / "models" / "model.pt"
    assert [p.name for p in target.parent.iterdir()] == ["model.pt"]
    published = torch.load(target, weights_only=True)
    assert published.keys() == network.state_dict().keys()
    assert all(torch.equal(published[name], value) for name, value in network.state_dict().items())


def test_a_variants_weights_lie_beside_the_bundles(tmp_path: Path, bundle_copy: Path) -> None:
    networks = {}
    for variant in (None, "voxelmorph"):
        config = read_config(bundle_copy, variant=variant)
        networks[variant] = config.get("network_def")
        torch.save(networks[variant].state_dict(), tmp_path / "run.pt")
        named = [] if variant is None else [f"--variant={variant}"]
        cli.main(["publish", f"--weights={tmp_path / 'run.pt'}", f"--bundle_dir={bundle_copy}", *named])
    assert {p.name for p in (bundle_copy / "models").iterdir()} == {"model.pt", "voxelmorph.pt"}
    for variant, network in networks.items():
        found = load_network(bundle_copy, variant=variant).state_dict()
        assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())


def test_weights_land_in_the_bundle_that_is_named(
    tmp_path: Path, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bundle_copy, tmp_path / "here" / "bundles" / "fmirnet_chaos")
    torch.save(network_of(bundle_copy).state_dict(), tmp_path / "run.pt")
    monkeypatch.chdir(tmp_path / "here")
    cli.main(["publish", f"--weights={tmp_path / 'run.pt'}", "--bundle_dir=fmirnet_chaos"])
    assert printed_path(capsys) == Path("bundles/fmirnet_chaos/models/model.pt")
    assert [p.name for p in (tmp_path / "here").iterdir()] == ["bundles"]


@pytest.mark.parametrize("kind", ["another network", "whole checkpoint", "list", "text", "cut short", "empty"])
def test_wrong_weights_are_refused_and_the_target_stays(
    kind: str, tmp_path: Path, bundle_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, target = tmp_path / "run.pt", bundle_copy / "models" / "model.pt"
    target.parent.mkdir()
    target.write_bytes(b"the published weights")
    state = network_of(bundle_copy).state_dict()
    if kind == "another network":
        torch.save(torch.nn.Linear(2, 2).state_dict(), weights)
    elif kind == "whole checkpoint":
        torch.save({"model": state, "epoch": 3}, weights)
    elif kind == "list":
        torch.save(list(state.values())[:2], weights)
    elif kind == "cut short":
        torch.save(state, weights)
        weights.write_bytes(weights.read_bytes()[:5000])
    else:
        weights.write_text("hello" if kind == "text" else "")
    message = refused(["publish", f"--weights={weights}", f"--bundle_dir={bundle_copy}"], capsys)
    assert message.startswith("weights: ") and str(weights) in message
    assert [p.name for p in target.parent.iterdir()] == ["model.pt"]
    assert target.read_bytes() == b"the published weights"


def test_folder_that_is_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({}, tmp_path / "run.pt")
    message = refused(["publish", f"--weights={tmp_path / 'run.pt'}", f"--bundle_dir={tmp_path}"], capsys)
    assert message.startswith("bundle_dir: ") and "configs/inference.json" in message


# --- NIfTI files with two places ---------------------------------------------------------------------------------


@pytest.fixture
def two_places(tmp_path: Path) -> Path:
    """A folder with an image whose qform and sform lie 40 mm apart, and labels of it as nibabel and ITK write them."""
    rng = np.random.default_rng(0)
    here, there = (np.array([[1.5, 0, 0, x], [0, 1.2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]) for x in (0, 40))
    image = nib.Nifti1Image(rng.integers(0, 256, (24, 24, 12)).astype(np.uint8), None)
    image.header.set_qform(here, 1)
    image.header.set_sform(there, 2)
    nib.save(image, tmp_path / "image.nii.gz")
    drawn = np.zeros((24, 24, 12), np.uint8)
    drawn[8:16, 8:16, [2, 6, 10]] = 1
    nib.save(nib.Nifti1Image(drawn, nib.load(tmp_path / "image.nii.gz").affine), tmp_path / "label.nii.gz")
    nib.save(nib.Nifti1Image(drawn, here), tmp_path / "itk_label.nii.gz")
    return tmp_path


def test_two_places_are_one_line_on_stderr(two_places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, label = two_places / "image.nii.gz", two_places / "label.nii.gz"
    with pytest.raises(SystemExit):
        cli.main(["propagate", "--image", str(image), "--label", str(label), "--output", str(two_places / "o.nii.gz")])
    warning, error = capsys.readouterr().err.strip().splitlines()
    assert warning.startswith(f"fmirnet: warning: {image}: its qform and its sform lie up to 40 mm (26.7 voxels)")
    assert error.startswith(f"fmirnet: error: {label}: lies on another grid than {image}: its origin lies 40 mm")


def test_two_places_through_a_datalist_are_said_once(two_places: Path) -> None:
    words = [sys.executable, "-m", "fmirnet_monai", "prepare", "folder", "--source_dir", str(two_places), "--images"]
    words += ["image*.nii.gz", "--labels", "itk_label*.nii.gz", "--output_dir", str(two_places / "out")]
    result = run([*words, "--min_label_area", "0", "--fractions", "1,0,0"])
    assert result.returncode == 0, result.stderr
    said = [line for line in result.stderr.splitlines() if "qform" in line]
    assert len(said) == 1 and "fmirnet: warning: " in said[0] and "warnings.warn" not in result.stderr
    for pair in load_pairs(two_places / "out" / "datalist.json", "training"):
        assert nib.load(pair["fixed"]).affine[0, 3] != 40


def test_metrics_say_how_two_grids_differ(two_places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label, other = two_places / "label.nii.gz", two_places / "itk_label.nii.gz"
    message = refused(["metrics", "--label", str(label), "--fixed_label", str(other)], capsys)
    assert f"{label}: lies on another grid than {other}: its origin lies 40 mm (26.7 voxels) away" in message
