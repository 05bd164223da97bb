"""What a pull request to the model zoo takes: whole, without this package, and as the zoo's own checks want it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commands import BUNDLES, here

from fmirnet_monai.bundle import copy_bundle
from fmirnet_monai.terms import weights_license
from fmirnet_monai.utils import digest
from fmirnet_monai.zoo import checks, folder, write_zoo_folder

NAMES = sorted(path.parent.name for path in BUNDLES.glob("*/configs"))
TRAINED = "fmirnet_echonet"  # whose unit test runs here, too


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of a bundle, to be broken."""
    return copy_bundle(TRAINED, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_folder_passes_the_zoos_checks_without_the_package(name: str, tmp_path: Path) -> None:
    made = write_zoo_folder(name, tmp_path, unit_tests=name == TRAINED)
    assert {path.name for path in made.iterdir()} == {"models", "ci", "PULL_REQUEST.md", "CHECKS.md"}
    parts = {path.name for path in (made / "models" / name).iterdir()}
    assert parts == {"LICENSE", "configs", "docs", "models", "scripts"}  # no run has left anything
    page, request = ((made / f"{text}.md").read_text() for text in ("CHECKS", "PULL_REQUEST"))
    version = json.loads((BUNDLES / name / "configs" / "metadata.json").read_text())["version"]
    weights = made / "models" / name / "models" / "model.pt"
    assert weights.read_bytes() == (BUNDLES / name / "models" / "model.pt").read_bytes()
    assert digest(weights) in page and f"{name} {version}" in page and "TorchScript" in page
    assert ("unit tests | 2 passed" in page) == (name == TRAINED)
    assert "$" not in request and f"Terms of the weights: {weights_license(BUNDLES / name)}," in request
    assert "](../../" not in (made / "models" / name / "docs" / "README.md").read_text()
    for file in made.rglob("*"):
        assert file.is_dir() or str(BUNDLES.parent).encode() not in file.read_bytes(), file


def test_what_is_there_already_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / TRAINED).mkdir()
    (tmp_path / TRAINED / "mine.txt").write_text("of the user")
    with pytest.raises(SystemExit):
        here(capsys, "bundle", "zoo", TRAINED, output_dir=tmp_path)
    assert "is there already; remove it or name another output_dir" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / TRAINED).iterdir()] == ["mine.txt"]


META, INFERENCE = "configs/metadata.json", "configs/inference.json"
FAULTS = {
    "files": ("LICENSE", "", "", "LICENSE is missing"),
    "paths": (INFERENCE, "'/eval'", "'/home/me/eval'", "inference.json names /home/"),
    "version and changelog": (META, '"version": "', '"version": "9', "9.* is not in the changelog"),
    "names of keys": (INFERENCE, '"inferer": {', '"infer": {', "inference.json has no inferer"),
    "shapes of input and output": (
        "configs/metadata.json",
        '"num_channels": 2',
        '"num_channels": 3',
        "must have shape",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_zoo_would_refuse_is_found(fault: str, bundle: Path) -> None:
    name, old, new, message = FAULTS[fault]
    check = checks.CHECKS["files" if fault == "paths" else fault]
    file = bundle / name
    text = file.read_text()
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert check(bundle, metadata) and old in text
    if old:
        file.write_text(text.replace(old, new, 1))
    else:
        file.unlink()
    with pytest.raises((SystemExit, ValueError), match=message):
        check(bundle, json.loads((bundle / "configs" / "metadata.json").read_text()))


@pytest.mark.slow
def test_nothing_is_written_where_a_check_fails(bundle: Path, tmp_path: Path) -> None:
    file = bundle / "configs" / "metadata.json"
    file.write_text(file.read_text().replace('"task"', '"tusk"'))
    with pytest.raises(ValueError, match="fails the model zoo's checks: Failed validating against schema"):
        write_zoo_folder(bundle, tmp_path / "out", trusted=True, unit_tests=False)
    assert not list((tmp_path / "out").rglob("*"))


def test_a_bundle_from_elsewhere_is_run_only_where_it_is_trusted(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the zoo's checks run what its configs say; give --trust_bundle true"):
        write_zoo_folder(bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_large_file_is_put_aside_and_listed(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "LIMIT", (bundle / "models" / "model.pt").stat().st_size - 1)
    monkeypatch.setattr(folder, "run_checks", lambda *given: {"files": "all"})
    made = write_zoo_folder(bundle, tmp_path / "out", trusted=True)
    listed = json.loads((made / "models" / TRAINED / "large_files.json").read_text())["large_files"]
    assert [item["path"] for item in listed] == ["models/model.pt"] and "FILL IN" in listed[0]["url"]
    aside = made / "large_files" / listed[0]["path"]
    assert listed[0]["hash_val"] == digest(aside) == digest(BUNDLES / TRAINED / "models" / "model.pt")
    assert not (made / "models" / TRAINED / "models" / "model.pt").exists()
    assert "models/model.pt from `large_files`" in (made / "PULL_REQUEST.md").read_text()
    assert torch.load(aside, weights_only=True)
