"""The terms of weights: in every bundle's metadata, and told where weights are used that are not free."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import BUNDLES

from fmirnet_monai.bundle import copy_bundle, load_network
from fmirnet_monai.terms import FREE, tell_terms, weights_license


@pytest.mark.parametrize("bundle", sorted(folder.name for folder in BUNDLES.iterdir()))
def test_each_bundle_states_the_terms_that_its_page_of_data_has(bundle: str) -> None:
    terms = weights_license(BUNDLES / bundle)
    page = (BUNDLES / bundle / "docs" / "data_license.txt").read_text()
    assert terms == "CC-BY-NC-SA-4.0" and "CC BY-NC-SA 4.0" in page and "sharing alike" in page


def test_terms_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for expected in (1, 0):
        load_network(BUNDLES / "fmirnet_echonet")
        assert capsys.readouterr().err.count("fmirnet_echonet come under CC-BY-NC-SA-4.0") == expected
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    load_network(BUNDLES / "fmirnet_echonet")
    assert "CC-BY-NC-SA-4.0" in capsys.readouterr().err


def test_nothing_is_told_of_free_weights_or_of_those_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    copy = copy_bundle(BUNDLES / "fmirnet_echonet", tmp_path)
    metadata = copy / "configs" / "metadata.json"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "weights_license": FREE[0]}))
    load_network(copy)
    own = shutil.copy(BUNDLES / "fmirnet_echonet" / "models" / "model.pt", tmp_path / "own.pt")
    load_network(BUNDLES / "fmirnet_echonet", own)
    assert capsys.readouterr().err == ""


def test_terms_that_a_bundle_makes_up_lead_nowhere_else_and_are_not_called_what_they_do_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They come from elsewhere: nothing is written outside the folder of states, nor are a terminal's codes printed."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    weights = tmp_path / "bundle" / "models" / "model.pt"
    metadata = tmp_path / "bundle" / "configs" / "metadata.json"
    metadata.parent.mkdir(parents=True)
    for terms in ("/../../../../elsewhere/file", "MIT \x1b[2J", "a" * 300):
        metadata.write_text(json.dumps({"weights_license": terms}))
        tell_terms(weights)
        said = capsys.readouterr().err
        assert "the weights of bundle come under" in said and "\x1b" not in said and "commercial" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "state"]
    assert len([*(tmp_path / "state" / "fmirnet" / "terms").iterdir()]) == 3
