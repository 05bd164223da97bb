"""What a bundle's own config asks of the package: where it lies, and how it tells what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import BUNDLES
from monai.bundle import ConfigWorkflow

from fmirnet_monai.bundle import bundle_root, find_bundle, report_errors
from fmirnet_monai.utils import read_json


def bundle(folder: Path) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text("{}")
    return folder


def test_a_bundle_is_where_its_config_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert bundle_root("fmirnet_chaos") == str(BUNDLES / "fmirnet_chaos")  # beside the package
    bundle(tmp_path / "bundles" / "fmirnet_chaos")
    assert bundle_root("fmirnet_chaos") == "bundles/fmirnet_chaos"
    bundle(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    assert bundle_root("fmirnet_chaos") == "."
    configs = bundle(tmp_path / "elsewhere") / "configs"
    (configs / "train.json").write_text(
        '{"imports": ["$import fmirnet_monai.bundle as bundle"], "initialize": ["$bundle.bundle_root(\'mine\')"]}'
    )
    workflow = ConfigWorkflow(str(configs / "train.json"), logging_file=False, workflow_type=None)
    assert workflow.initialize() == [str(tmp_path / "elsewhere")]
    monkeypatch.chdir(tmp_path / "bundles")
    with pytest.raises(FileNotFoundError, match="my_own is no bundle"):
        bundle_root("my_own")


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (lambda: read_json("none.json"), "fmirnet_monai: error: [Errno 2] No such file or directory: 'none.json'"),
        (lambda: find_bundle("none"), "fmirnet_monai: error: bundle: none is no bundle with a configs/inference.json"),
        (lambda: {}["x"], "KeyError: 'x'"),
        (lambda: int("x"), "ValueError: invalid literal for int"),
    ],
)
def test_errors_of_input_are_one_line_and_others_keep_their_traceback(
    work: Callable[[], object], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    report_errors()
    try:
        try:
            work()
        except Exception as error:
            raise RuntimeError("applying it") from error
    except RuntimeError:
        sys.excepthook(*sys.exc_info())
    said = capsys.readouterr().err
    if told.startswith("fmirnet_monai"):
        assert said.startswith(told) and said.count("\n") == 1
    else:
        assert said.startswith("Traceback") and told in said
