"""Bundles as MONAI finds them: where one's own config says it lies, and what ``monai.bundle.load`` makes of it."""

from __future__ import annotations

import socket
from pathlib import Path

import monai.bundle
import pytest
import torch
from commands import BUNDLES
from monai.bundle import ConfigWorkflow

import fmirnet_monai
from fmirnet_monai.bundle import bundle_root, copy_bundle, load_network
from fmirnet_monai.output import files_of
from fmirnet_monai.utils import write_text

NAMES = sorted(path.parent.name for path in BUNDLES.glob("*/configs"))
JOINT = ("rfcn_chaos", "runet_chaos")  # whose training counts the classes in the data


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


@pytest.mark.parametrize("workflow", ["train", "inference"])
@pytest.mark.parametrize("name", NAMES)
def test_monai_loads_the_network_from_a_folder_of_bundles(
    name: str, workflow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*address: object) -> None:
        raise AssertionError(f"asked {address}")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    before = files_of(copy_bundle(name, tmp_path))
    override = {"out_channels": 2} if (name in JOINT and workflow == "train") else None
    try:
        network = monai.bundle.load(
            name, bundle_dir=tmp_path, source="github", workflow_type=workflow, device="cpu", net_override=override
        )
    finally:
        monai.utils.set_determinism(None)
    assert files_of(tmp_path / name) == before  # no sample for a network alone
    expected = load_network(BUNDLES / name).state_dict()
    assert network.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def test_a_copy_holds_the_bundle_and_nothing_of_its_runs(tmp_path: Path) -> None:
    source = copy_bundle("fmirnet_echonet", tmp_path / "one")
    assert source == tmp_path / "one" / "fmirnet_echonet"
    (source / "runs" / "train").mkdir(parents=True)
    (source / "runs" / "train" / "model.pt").touch()
    (source / "models" / "mine.pt").touch()
    copy = copy_bundle(source, tmp_path / "two")
    files = {file.relative_to(copy).as_posix(): file for file in copy.rglob("*") if file.is_file()}
    expected = {file.relative_to(BUNDLES / "fmirnet_echonet") for file in (BUNDLES / "fmirnet_echonet").rglob("*.json")}
    assert {path.as_posix() for path in expected} | {"models/mine.pt", "models/model.pt", "LICENSE"} <= set(files)
    assert not any(name.startswith("runs") for name in files)
    with pytest.raises(FileExistsError, match="is there already; name another output_dir"):
        copy_bundle(source, tmp_path / "two")
    with pytest.raises(FileNotFoundError, match="nothing is no bundle"):
        copy_bundle("nothing", tmp_path)


def test_nothing_is_written_into_the_package(tmp_path: Path) -> None:
    inside = Path(fmirnet_monai.__file__).parent / "bundles"
    with pytest.raises(PermissionError, match="lies in the installed package, where nothing is written"):
        copy_bundle("fmirnet_echonet", inside)
    with pytest.raises(PermissionError, match="fmirnet bundle copy"):
        write_text(inside / "file.txt", "")
    assert not inside.exists()
