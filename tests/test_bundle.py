"""What a bundle's own config asks of the package: where it lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import BUNDLES
from monai.bundle import ConfigWorkflow

from fmirnet_monai.bundle import bundle_root


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
