"""Methods by name: which are refused, and what a row may set for itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import BUNDLES

from fmirnet_monai.bundle import read_config
from fmirnet_monai.study import Context, MethodSpec
from fmirnet_monai.study.training import TrainingJob, train_networks


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("demons", {"sigma": 1}, "unexpected keyword argument 'sigma'"),
        ("nothing", {}, "no variant 'nothing'"),
        ("voxelmorph", {}, "needs trained weights"),
        ("fmirnet", {"step": 0.5}, "no settings"),
    ],
)
def test_wrong_methods_are_named(name: str, settings: dict, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        MethodSpec(name, settings=settings).build(Context(), 2)


def test_a_row_can_take_another_bundle_without_the_comparisons_overrides(tmp_path: Path) -> None:
    network = read_config(BUNDLES / "fmirnet_sliver").get("network_def")
    torch.save(network.state_dict(), tmp_path / "model.pt")
    settings = {"bundle": "fmirnet_sliver", "weights": str(tmp_path / "model.pt")}
    context = Context(overrides={"network_def#channels": [2, 4], "spatial_size": [16, 16]})
    registrar = MethodSpec("fmirnet", settings=settings).build(context, 3)
    assert (registrar.spatial_dims, registrar.spatial_size) == (3, 64)
    job = MethodSpec("fmirnet", settings=settings).job("d.json", replace(context, models_dir=tmp_path), {"seed": 1})
    assert job.bundle == "fmirnet_sliver" and job.overrides == {"seed": 1}


def test_a_training_that_fails_is_named_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingJob, "command", lambda _: ["-c", "import sys; sys.exit('no such datalist')"])
    jobs = [TrainingJob(tmp_path / name, "none.json") for name in ("one", "other")]
    with pytest.raises(ChildProcessError, match=r"one: ended with code 1, see .*train\.log; other: ended"):
        train_networks(jobs)
    assert "no such datalist" in (tmp_path / "one" / "train.log").read_text()
    assert not (tmp_path / "one" / "trained.json").exists()
