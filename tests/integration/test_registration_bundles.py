"""The bundles for echocardiograms and for volumes: what differs from fmirnet_chaos, from raw files to fields in mm."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from commands import BUNDLES, bundle_run, bundle_words, run
from monai.bundle import ConfigParser

from fmirnet_monai.bundle import read_config
from fmirnet_monai.data import (
    Pairing,
    find_echonet_cases,
    find_sliver_cases,
    load_pairs,
    read_folder_case,
    write_echo_pairs,
    write_echo_phantom,
    write_pairs,
    write_phantom,
)

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Small:
    """A bundle, and what makes it small enough for a test."""

    name: str
    size: tuple[int, ...]

    def __str__(self) -> str:
        return self.name

    @property
    def configs(self) -> Path:
        return BUNDLES / self.name / "configs"

    def options(self) -> dict[str, Any]:
        own: dict[str, Any] = {"network_def#channels": [4, 8]}
        if self.name == "fmirnet_universal":
            own |= {"canvas_size": [n + 8 for n in self.size], "window_size": list(self.size)}
        if self.name == "fmirnet_sliver":
            own = {f"network_def#{part}#channels": [4, 8] for part in ("registration", "segmentation")}
            own |= {"window_size": list(self.size)}
        return {"spatial_size": list(self.size), **own}


ECHO = Small("fmirnet_echonet", (48, 48))
UNIVERSAL = Small("fmirnet_universal", (48, 48))
SLIVER = Small("fmirnet_sliver", (24, 24, 24))
THIRDS = (0.34, 0.33, 0.33)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Six clips and six volumes, two in each section."""
    echo, sliver = (tmp_path_factory.mktemp(name) for name in ("echo", "sliver"))
    cases, _ = find_echonet_cases(write_echo_phantom(echo / "raw", subjects=6, frames=4))
    write_echo_pairs(cases, echo, Pairing(fractions=THIRDS), "phantom")
    raw = write_phantom(sliver / "raw", 6, (26, 20, 16), (15.0, 15.0, 15.0), layout="sliver")
    write_pairs(map(read_folder_case, find_sliver_cases(raw)), sliver, Pairing(3, fractions=THIRDS))
    return {ECHO.name: echo, UNIVERSAL.name: echo, SLIVER.name: sliver}


@pytest.fixture(scope="module", params=[ECHO, UNIVERSAL, SLIVER], ids=lambda bundle: bundle.name)
def bundle(request: pytest.FixtureRequest) -> Small:
    return request.param


@pytest.fixture(scope="module")
def trained(bundle: Small, samples: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a run of two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    config = bundle.configs / "train.json"
    result = bundle_run(config, dataset_dir=samples[bundle.name], output_dir=folder, max_epochs=2, **bundle.options())
    assert result.returncode == 0, result.stderr
    assert "| after |" in result.stdout
    return folder


def test_training_writes_weights_table_and_picture(bundle: Small, trained: Path) -> None:
    assert {"model.pt", "last.pt", "summary.md", "cases.csv", "pairs.png"} <= set(os.listdir(trained))
    after = json.loads((trained / "summary.json").read_text())["after"]
    assert after["dice"]["mean"] > 0.3 and after["digital_folding"]["mean"] < 1


def test_evaluation_measures_weights(bundle: Small, trained: Path, samples: dict[str, Path], tmp_path: Path) -> None:
    result = bundle_run(
        [bundle.configs / "train.json", bundle.configs / "evaluate.json"],
        dataset_dir=samples[bundle.name],
        output_dir=tmp_path,
        weights=trained / "model.pt",
        **bundle.options(),
    )
    assert result.returncode == 0, result.stderr
    again, first = (json.loads((folder / "summary.json").read_text())["after"] for folder in (tmp_path, trained))
    assert again["dice"] == first["dice"]


def test_another_tool_applies_the_saved_field_to_the_raw_image(
    bundle: Small, trained: Path, samples: dict[str, Path], tmp_path: Path
) -> None:
    pair = load_pairs(samples[bundle.name] / "datalist.json", "test")[0]
    result = bundle_run(
        bundle.configs / "inference.json",
        pairs=[pair],
        output_dir=tmp_path,
        bundle_root=bundle.configs.parent,
        weights=trained / "model.pt",
        **bundle.options(),
    )
    assert result.returncode == 0, result.stderr
    names = {name: str(next(tmp_path.rglob(f"*_{name}.nii.gz"))) for name in ("warped", "warped_label", "displacement")}
    warped, label = sitk.ReadImage(names["warped"]), nib.load(names["warped_label"]).get_fdata()
    transform = sitk.DisplacementFieldTransform(sitk.ReadImage(names["displacement"], sitk.sitkVectorFloat64))
    moving, mask = (sitk.ReadImage(pair[key], sitk.sitkFloat64) for key in ("moving", "moving_label"))
    low, high = np.percentile(nib.load(pair["moving"]).get_fdata(), (0.5, 99.5))

    def likeness(by: sitk.Transform) -> float:
        again = sitk.GetArrayFromImage(sitk.Resample(moving, warped, by, sitk.sitkLinear, 1e6))
        inside = again < 1e5  # beyond the moving image the border's values are repeated
        scaled = np.clip((again[inside] - low) / (high - low), 0, 1)
        return np.corrcoef(scaled, sitk.GetArrayFromImage(warped)[inside])[0, 1]

    assert likeness(transform) > max(0.9, likeness(sitk.Transform(len(bundle.size), sitk.sitkIdentity)))
    masks = sitk.GetArrayFromImage(sitk.Resample(mask, warped, transform, sitk.sitkNearestNeighbor)).T > 0
    # few voxels, all of them near the edge, and the nearest was taken twice
    assert 2 * (masks & (label > 0)).sum() / (masks.sum() + (label > 0).sum()) > 0.8


def test_training_and_inference_share_their_settings(bundle: Small) -> None:
    train, inference = (json.loads((bundle.configs / f"{n}.json").read_text()) for n in ("train", "inference"))
    for name in ("network_def", "window", "percentiles", "spatial_size", "intensity", "affine", "affine_stage"):
        assert train.get(name) == inference.get(name), name
    steps = [step["_target_"] for step in inference["preprocessing"]["transforms"] if step.get("keys") != "affine_ddf"]
    own = train["load_pair"] if "load_pair" in train else train["read_pair"] + train["fit_window"]
    assert [step["_target_"] for step in own] == [name for name in steps if name != "CopyItemsd"]


def test_two_processes_learn_together(bundle: Small, samples: dict[str, Path], tmp_path: Path) -> None:
    words = bundle_words(
        [bundle.configs / "train.json", bundle.configs / "multi_gpu_train.json"],
        dataset_dir=samples[bundle.name],
        output_dir=tmp_path,
        max_epochs=1,
        **bundle.options(),
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    result = run([*launcher, *words[1:]])
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "model.pt").is_file()


@pytest.mark.parametrize(("epochs", "pairs", "momentum"), [(1, 8, 0.5), (10, 80, 0.1), (40, 600, 0.005)])
def test_the_average_of_a_short_run_does_not_lag_behind_its_weights(
    samples: dict[str, Path], epochs: int, pairs: int, momentum: float
) -> None:
    parser = ConfigParser()
    parser.read_config(UNIVERSAL.configs / "train.json")
    parser.update({"bundle_root": str(UNIVERSAL.configs.parent), "dataset_dir": str(samples[UNIVERSAL.name])})
    parser.update({"max_epochs": epochs, "pairs_per_epoch": pairs, **UNIVERSAL.options()})
    assert parser.get_parsed_content("average").momentum == pytest.approx(momentum)


@pytest.mark.parametrize(
    ("variant", "learnt"),
    [
        ("region", {"registration", "segmentation"}),
        ("structures", {"segmentation"}),
        ("taught", {"registration", "segmentation"}),
    ],
)
def test_a_variant_trains_what_it_is_for(
    samples: dict[str, Path], tmp_path: Path, variant: str, learnt: set[str]
) -> None:
    parser = ConfigParser()
    parser.read_config(SLIVER.configs / "train.json")
    parser.update({"bundle_root": str(SLIVER.configs.parent), **SLIVER.options()})
    start = tmp_path / "start.pt"
    torch.save(parser.get_parsed_content("network_def").state_dict(), start)
    configs = [SLIVER.configs / "train.json", SLIVER.configs / "variants" / f"{variant}.json"]
    options = {**SLIVER.options(), "max_epochs": 1, "weights": start, "warmup_steps": 0}
    options |= {"network_def#region": [1]} if variant == "region" else {}
    result = bundle_run(configs, dataset_dir=samples[SLIVER.name], output_dir=tmp_path / "run", **options)
    assert result.returncode == 0, result.stderr
    before, after = (torch.load(file, weights_only=True) for file in (start, tmp_path / "run" / "model.pt"))
    assert {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])} == learnt


@pytest.mark.parametrize(
    ("bundle", "variant"),
    [(b, file.stem) for b in (ECHO, UNIVERSAL, SLIVER) for file in sorted((b.configs / "variants").glob("*.json"))],
    ids=str,
)
def test_each_variant_is_a_whole_config(bundle: Small, variant: str) -> None:
    parser = ConfigParser()
    parser.read_config([bundle.configs / "train.json", bundle.configs / "variants" / f"{variant}.json"])
    parser["bundle_root"] = str(bundle.configs.parent)
    network, loss = (parser.get_parsed_content(name) for name in ("network_def", "loss"))
    pair = torch.rand(2, 2, *[32] * len(bundle.size))
    if variant == "structures":
        assert torch.isfinite(loss(network.scores(pair[:, :1]), pair[:, 1:].round()))
        return
    assert network(pair).shape == (2, len(bundle.size), *pair.shape[2:])
    applied = read_config(bundle.configs.parent, variant=variant).get("network_def")
    applied.load_state_dict(network.state_dict())
    assert torch.isfinite(loss(network(pair), pair if bundle is ECHO else (pair, None, None)))
    if variant == "paper":
        assert loss.weights["ssim"] == 1 and loss.weights["smoothness"] == 1e-5
