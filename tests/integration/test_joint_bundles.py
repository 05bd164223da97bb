"""The bundles of joint registration and segmentation: any two networks by config, volumes in, masks out."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import BUNDLES, bundle_run
from monai.bundle import ConfigParser

from fmirnet_monai.data import load_volumes
from fmirnet_monai.study import run_study

pytestmark = pytest.mark.slow

JOINT = [BUNDLES / name for name in ("runet_chaos", "rfcn_chaos")]
RUNET = JOINT[0]
VARIANTS = sorted(file.stem for file in (RUNET / "configs" / "variants").glob("*.json"))
SMALL: dict[str, Any] = {
    "spatial_size": [64, 64],
    "pixel_size": 6.0,
    "batch_size": 4,
    "network_def#channels": [4, 8],
    "network_def#strides": [2],
    "registration_def#channels": [4, 8],
}


@pytest.fixture(scope="module")
def trained(joint_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a run of a few epochs."""
    folder = tmp_path_factory.mktemp("joint")
    config = [RUNET / "configs" / "train.json"]
    result = bundle_run(config, dataset_dir=joint_sample, output_dir=folder, max_epochs=6, learning_rate=0.01, **SMALL)
    assert result.returncode == 0, result.stderr
    assert "| segmentation | 1 |" in result.stdout
    return folder


def test_joint_training_learns_to_segment_and_writes_the_segmentation_network(
    trained: Path, joint_sample: Path
) -> None:
    assert {"model.pt", "last.pt", "summary.md", "cases.csv", "volumes.png"} <= set(os.listdir(trained))
    assert json.loads((trained / "summary.json").read_text())["segmentation"]["dice"]["mean"] > 0.6
    parser = ConfigParser()
    parser.read_config(RUNET / "configs" / "inference.json")
    parser.update({key: value for key, value in SMALL.items() if key.startswith("network_def")})
    parser.get_parsed_content("network_def").load_state_dict(torch.load(trained / "model.pt", weights_only=True))
    volume = load_volumes(joint_sample / "datalist.json", "test")[0]
    found, label = nib.load(trained / f"{volume['subject']}.nii.gz"), nib.load(volume["label"])
    assert found.shape == label.shape
    np.testing.assert_allclose(found.affine, label.affine, atol=1e-4)


def test_another_network_in_the_folder_of_a_run_is_refused(trained: Path, joint_sample: Path) -> None:
    before = (trained / "last.pt").read_bytes()
    other = {**SMALL, "network_def#channels": [4, 6]}
    result = bundle_run([RUNET / "configs" / "train.json"], dataset_dir=joint_sample, output_dir=trained, **other)
    assert result.returncode != 0 and "started with another joint_def" in result.stderr
    assert (trained / "last.pt").read_bytes() == before


def test_inference_takes_any_volume_and_gives_the_mask_on_its_own_grid(
    trained: Path, joint_sample: Path, tmp_path: Path
) -> None:
    volume = load_volumes(joint_sample / "datalist.json", "test")[0]
    image = nib.load(volume["image"])
    turned = image.as_reoriented(nib.orientations.axcodes2ornt("SRA"))  # a file of another tool, axes in other order
    nib.save(turned, tmp_path / "scan.nii.gz")
    options = {key: value for key, value in SMALL.items() if key not in ("spatial_size", "registration_def#channels")}
    result = bundle_run(
        [RUNET / "configs" / "inference.json"],
        images=[str(tmp_path / "scan.nii.gz")],
        weights=trained / "model.pt",
        output_dir=tmp_path / "out",
        **options,
    )
    assert result.returncode == 0, result.stderr
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["scan_label.nii.gz"]
    found = nib.load(tmp_path / "out" / "scan_label.nii.gz")
    assert found.shape == turned.shape
    np.testing.assert_allclose(found.affine, turned.affine, atol=1e-4)
    label = nib.load(volume["label"]).as_reoriented(nib.orientations.axcodes2ornt("SRA")).get_fdata()
    assert 2 * (found.get_fdata() * label).sum() / (found.get_fdata().sum() + label.sum()) > 0.6


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_is_a_whole_config(variant: str, joint_sample: Path) -> None:
    parser = ConfigParser()
    parser.read_config([RUNET / "configs" / "train.json", RUNET / "configs" / "variants" / f"{variant}.json"])
    parser.update({"bundle_root": str(RUNET), "dataset_dir": str(joint_sample), "num_workers": 0})
    network, loss, prepare = (parser.get_parsed_content(name) for name in ("network", "loss", "prepare_batch"))
    batch = next(iter(parser.get_parsed_content("train#dataloader")))
    inputs, target = prepare(batch, torch.device("cpu"))
    assert torch.isfinite(loss(network(inputs), target))


def test_a_third_segmentation_network_joins_by_config_alone(joint_sample: Path, tmp_path: Path) -> None:
    network = {"_target_": "SegResNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "init_filters": 8}
    options = {"spatial_size": [32, 32], "pixel_size": 12.0, "registration_def#channels": [2, 4], "max_epochs": 1}
    result = bundle_run(
        [RUNET / "configs" / "train.json"],
        dataset_dir=joint_sample,
        output_dir=tmp_path,
        network_def=network,
        **options,
    )
    assert result.returncode == 0 and "| segmentation | 1 |" in result.stdout, result.stderr


def test_training_and_inference_share_their_settings() -> None:
    train, inference = (json.loads((RUNET / "configs" / f"{n}.json").read_text()) for n in ("train", "inference"))
    for name in ("network_def", "window", "pixel_size", "intensity"):
        assert train[name] == inference[name], name
    assert train["load_volume"][2:] == inference["preprocessing"]["transforms"][2:]


def test_volumes_that_were_not_prepared_are_named(small_sample: Path, tmp_path: Path) -> None:
    result = bundle_run([RUNET / "configs" / "train.json"], dataset_dir=small_sample, output_dir=tmp_path / "out")
    assert result.returncode != 0 and "prepare the data with --volumes" in result.stderr
    assert not (tmp_path / "out").exists()


def test_study_of_segmentation_from_raw_data_to_table(raw_phantom: Path, tmp_path: Path) -> None:
    prepare = ["prepare", "chaos", "--source_dir", "{source}", "--output_dir", "{work}/d", "--volumes"]
    prepare += ["--min_label_area", "0", "--r", "0.2", "--fractions", "0.5,0.25,0.25"]
    rows = [
        {"label": "few", "model": "few", "variant": "few_labels", "seeds": [0, 1]},
        {"label": "ours", "model": "ours", "few": "few", "ceiling": "few"},
    ]
    shared = {
        "kind": "segmentation",
        "prepare": [prepare],
        "training": {**SMALL, "max_epochs": 1, "num_classes": 3},
        "labels": {"1": "liver"},
        "methods": [{**row, "datalist": "d/datalist.json"} for row in rows],
    }
    (tmp_path / "shared.json").write_text(json.dumps(shared))
    (tmp_path / "study.json").write_text(json.dumps({"title": "Tiny", "data": "shared.json"}))
    arguments = (tmp_path / "study.json", raw_phantom, tmp_path / "work", tmp_path / "results")
    text = run_study(*arguments)
    assert "| Dice | Dice, liver |" in text and "| few | 1 |" in text and "| ours | 1 |" in text and "- ours: –" in text
    row = json.loads((tmp_path / "results" / "study.json").read_text())["rows"]["few"]
    assert len(set(row["dice_of_runs"])) == 2
    assert row["metrics"]["dice"]["mean"] == pytest.approx(np.mean(row["dice_of_runs"]))
    assert (tmp_path / "work" / "study" / "comparison.png").is_file()
    shutil.rmtree(tmp_path / "results")
    assert run_study(*arguments) == text and (tmp_path / "results" / "study.csv").is_file()


@pytest.mark.parametrize("bundle", [b for b in JOINT if (b / "models" / "model.pt").is_file()], ids=lambda b: b.name)
def test_committed_weights_segment_a_real_volume_that_no_training_saw(
    bundle: Path, real_data: Path, tmp_path: Path
) -> None:
    image, label = (nib.load(next((real_data / "btcv_ct").rglob(f"{name}_18.nii.gz"))) for name in ("image", "label"))
    hounsfield = image.get_fdata() / 255 * 400 - 125
    nib.save(nib.Nifti1Image(hounsfield.astype(np.float32), image.affine), tmp_path / "scan.nii.gz")
    options = {"images": [str(tmp_path / "scan.nii.gz")], "output_dir": tmp_path, "bundle_root": bundle}
    result = bundle_run(bundle / "configs" / "inference.json", **options)
    assert result.returncode == 0, result.stderr
    found, liver = nib.load(tmp_path / "scan_label.nii.gz").get_fdata() > 0, label.get_fdata() == 6
    assert 2 * (found & liver).sum() / (found.sum() + liver.sum()) > 0.8
