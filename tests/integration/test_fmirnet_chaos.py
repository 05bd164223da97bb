"""The bundle fmirnet_chaos as its users run it: train, resume, evaluate, infer, several processes, verification."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from commands import BUNDLES, ENVIRONMENT, REPOSITORY, bundle_run, bundle_words, options, run
from monai.bundle import ConfigParser
from monai.transforms import Compose

from fmirnet_monai.data import count_classes, load_pairs

pytestmark = pytest.mark.slow

BUNDLE = BUNDLES / "fmirnet_chaos"
CONFIGS = BUNDLE / "configs"
TRAIN, EVALUATE, INFERENCE, MULTI_GPU = (
    str(CONFIGS / f"{name}.json") for name in ("train", "evaluate", "inference", "multi_gpu_train")
)
SMALL = {"spatial_size": [48, 48], "network_def#channels": [4, 8]}


@pytest.fixture(scope="module")
def trained(small_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of an uninterrupted run of four epochs."""
    folder = tmp_path_factory.mktemp("trained")
    result = bundle_run(TRAIN, dataset_dir=small_sample, output_dir=folder, max_epochs=4, **SMALL)
    assert result.returncode == 0, result.stderr
    assert "| after |" in result.stdout
    return folder


def states(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def test_training_writes_weights_state_table_and_picture(trained: Path) -> None:
    assert {"model.pt", "last.pt", "summary.md", "summary.json", "cases.csv", "pairs.png"} <= set(os.listdir(trained))
    summary = json.loads((trained / "summary.json").read_text())
    columns = {"ssim", "ncc", "nmi", "dice", "hd", "assd"}
    assert columns <= set(summary["before"]) and columns | {"folding", "digital_folding"} <= set(summary["after"])
    assert summary["after"]["ncc"]["mean"] > summary["before"]["ncc"]["mean"]
    assert list(trained.glob("events.out.tfevents*"))


def test_run_killed_at_any_moment_goes_on_and_ends_as_if_it_had_not_been(
    small_sample: Path, trained: Path, tmp_path: Path
) -> None:
    command = bundle_words(TRAIN, dataset_dir=small_sample, output_dir=tmp_path, max_epochs=4, **SMALL)
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        deadline = time.monotonic() + 120
        while not (tmp_path / "last.pt").exists() or states(tmp_path / "last.pt")["epoch"] < 2:
            assert run.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
    assert states(tmp_path / "last.pt")["epoch"] < 4
    again = bundle_run(TRAIN, dataset_dir=small_sample, output_dir=tmp_path, max_epochs=4, **SMALL)
    assert again.returncode == 0, again.stderr
    assert "going on from epoch" in again.stdout
    resumed, whole = states(tmp_path / "last.pt"), states(trained / "last.pt")
    assert resumed["best_metric_epoch"] == whole["best_metric_epoch"]
    for name, value in whole["network"].items():
        torch.testing.assert_close(resumed["network"][name], value, rtol=0, atol=0)
    for name, value in states(trained / "model.pt").items():
        torch.testing.assert_close(states(tmp_path / "model.pt")[name], value, rtol=0, atol=0)


def test_a_finished_run_started_again_only_evaluates(small_sample: Path, trained: Path) -> None:
    before = (trained / "last.pt").read_bytes()
    result = bundle_run(TRAIN, dataset_dir=small_sample, output_dir=trained, max_epochs=4, **SMALL)
    assert result.returncode == 0 and "| after |" in result.stdout
    assert (trained / "last.pt").read_bytes() == before


def test_run_with_other_settings_does_not_touch_an_earlier_one(small_sample: Path, trained: Path) -> None:
    before = (trained / "last.pt").read_bytes()
    other = {**SMALL, "network_def#combine": "add"}
    result = bundle_run(TRAIN, dataset_dir=small_sample, output_dir=trained, max_epochs=6, **other)
    assert result.returncode != 0
    assert "started with another network_def" in result.stderr and "--output_dir" in result.stderr
    assert (trained / "last.pt").read_bytes() == before


def test_two_processes_train_alike(small_sample: Path, trained: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "monai.bundle", "run", "--config_file", str([TRAIN, MULTI_GPU])]
    command += options(dataset_dir=small_sample, output_dir=tmp_path, max_epochs=4, **SMALL)
    result = run(command)
    assert result.returncode == 0, result.stderr
    assert set(states(tmp_path / "model.pt")) == set(states(trained / "model.pt"))
    single, several = (json.loads((f / "summary.json").read_text()) for f in (trained, tmp_path))
    assert several["before"]["dice"]["n"] == single["before"]["dice"]["n"]
    assert several["after"]["ncc"]["mean"] > several["before"]["ncc"]["mean"]
    assert several["after"]["dice"]["mean"] == pytest.approx(single["after"]["dice"]["mean"], abs=0.05)


def test_title_command_as_it_stands_makes_its_own_sample_and_leaves_committed_weights(tmp_path: Path) -> None:
    root = tmp_path / "bundles" / "fmirnet_chaos"
    shutil.copytree(BUNDLE, root, ignore=shutil.ignore_patterns("sample", "runs", "eval"))
    committed = (root / "models" / "model.pt").read_bytes()
    result = bundle_run("bundles/fmirnet_chaos/configs/train.json", cwd=tmp_path, max_epochs=1, spatial_size=[32, 32])
    assert result.returncode == 0, result.stderr
    assert (root / "sample" / "datalist.json").is_file() and (root / "runs" / "train" / "pairs.png").is_file()
    inside = bundle_run("configs/train.json", cwd=root, max_epochs=1, spatial_size=[32, 32])
    assert inside.returncode == 0 and "| after |" in inside.stdout, inside.stderr
    assert (root / "models" / "model.pt").read_bytes() == committed
    assert sorted(os.listdir(tmp_path)) == ["bundles"]


def test_evaluate_measures_the_committed_weights(small_sample: Path, tmp_path: Path) -> None:
    configs = ["configs/train.json", "configs/evaluate.json"]
    result = bundle_run(configs, cwd=BUNDLE, dataset_dir=small_sample, output_dir=tmp_path)
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["after"]["dice"]["mean"] > summary["before"]["dice"]["mean"]
    assert summary["after"]["digital_folding"]["mean"] < 1


def test_inference_saves_warped_images_on_the_fixed_grid(small_sample: Path, tmp_path: Path) -> None:
    result = bundle_run(INFERENCE, dataset_dir=small_sample, output_dir=tmp_path, bundle_root=BUNDLE)
    assert result.returncode == 0, result.stderr
    pairs = load_pairs(small_sample / "datalist.json", "test")
    images = sorted(tmp_path.rglob("*_warped.nii.gz"))
    assert len(images) == len(pairs) == len(list(tmp_path.rglob("*_warped_label.nii.gz")))
    assert len(list(tmp_path.rglob("*_displacement.nii.gz"))) == len(pairs)
    fixed = {Path(p["fixed"]).name.removesuffix(".nii.gz"): nib.load(p["fixed"]).affine for p in pairs}
    for image in images:
        affine = nib.load(image).affine
        original = fixed[image.name.removesuffix("_warped.nii.gz")]
        assert affine[2, 3] == pytest.approx(original[2, 3])  # the height of the fixed slice, not of the moving one
        field_of_view = np.abs(np.diag(affine)[:2]) * nib.load(image).shape[:2]
        assert field_of_view == pytest.approx([64 * 6.0] * 2, abs=1)


def test_inference_takes_two_files_of_a_user(small_sample: Path, tmp_path: Path) -> None:
    pair = {k: v for k, v in load_pairs(small_sample / "datalist.json", "test")[0].items() if k in ("moving", "fixed")}
    result = bundle_run(INFERENCE, pairs=[pair], output_dir=tmp_path, bundle_root=BUNDLE)
    assert result.returncode == 0, result.stderr
    stem = Path(pair["fixed"]).name.removesuffix(".nii.gz")
    assert {p.name for p in tmp_path.iterdir()} == {f"{stem}_warped.nii.gz", f"{stem}_displacement.nii.gz"}
    # another tool that applies the saved field to the raw moving slice gets the saved warped slice
    warped = sitk.ReadImage(str(tmp_path / f"{stem}_warped.nii.gz"))
    field = sitk.ReadImage(str(tmp_path / f"{stem}_displacement.nii.gz"), sitk.sitkVectorFloat64)
    moving = sitk.ReadImage(pair["moving"], sitk.sitkFloat64)
    again = sitk.Resample(moving, warped, sitk.DisplacementFieldTransform(field), sitk.sitkLinear, -1000.0)
    expected = np.clip((sitk.GetArrayFromImage(again) + 125) / 400, 0, 1)
    assert np.corrcoef(expected.ravel(), sitk.GetArrayFromImage(warped).ravel())[0, 1] > 0.995


def test_training_and_inference_share_their_settings() -> None:
    train, inference = (json.loads(Path(file).read_text()) for file in (TRAIN, INFERENCE))
    for name in ("network_def", "window", "spatial_size"):
        assert train[name] == inference[name], name
    assert train["load_pair"] == inference["preprocessing"]["transforms"]


@pytest.mark.parametrize("variant", sorted(p.stem for p in (CONFIGS / "variants").glob("*.json")))
def test_each_variant_gives_a_network_of_the_same_form(variant: str) -> None:
    parser = ConfigParser()
    parser.read_config([TRAIN, str(CONFIGS / "variants" / f"{variant}.json")])
    parser["bundle_root"] = str(BUNDLE)
    network, loss = (parser.get_parsed_content(name) for name in ("network_def", "loss"))
    assert network(torch.rand(2, 2, 40, 56)).shape == (2, 2, 40, 56)
    augment = Compose(parser.get_parsed_content("train#random_transforms"))
    prepare = parser.get_parsed_content("train#trainer#prepare_batch")
    pair, target = prepare(augment({"image": torch.rand(2, 2, 48, 48)}), "cpu")
    assert torch.isfinite(loss(network(pair), target))


def test_early_stopping_ends_a_run_that_does_not_improve(small_sample: Path, tmp_path: Path) -> None:
    for _ in range(2):  # started again, it stays stopped
        result = bundle_run(
            TRAIN, dataset_dir=small_sample, output_dir=tmp_path, max_epochs=30, patience=2, learning_rate=0, **SMALL
        )
        assert result.returncode == 0, result.stderr
        assert states(tmp_path / "last.pt")["epoch"] == 3


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_wrong_datalist_is_named_with_the_remedy(name: str, tmp_path: Path) -> None:
    if name == "empty":
        (tmp_path / "datalist.json").write_text(json.dumps({"training": [], "validation": [], "test": []}))
    result = bundle_run(TRAIN, dataset_dir=tmp_path, output_dir=tmp_path / "out", bundle_root=BUNDLE)
    assert result.returncode != 0
    assert str(tmp_path / "datalist.json") in result.stderr
    assert ("prepare more subjects" if name == "empty" else "fmirnet prepare") in result.stderr
    assert not (tmp_path / "out").exists()


def test_nan_in_an_image_is_named(small_sample: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sample"
    shutil.copytree(small_sample, folder)
    file = load_pairs(folder / "datalist.json", "training")[0]["fixed"]
    image = nib.load(file)
    values = image.get_fdata(dtype=np.float32)
    values[3, 4] = np.nan
    nib.save(nib.Nifti1Image(values, image.affine), file)
    result = bundle_run(TRAIN, dataset_dir=folder, output_dir=tmp_path / "out", **SMALL)
    assert result.returncode != 0
    assert Path(file).name in result.stderr and "NaN" in result.stderr


def test_pairs_without_labels_train_and_are_measured_by_similarity(small_sample: Path, tmp_path: Path) -> None:
    sections = json.loads((small_sample / "datalist.json").read_text())
    for section in ("training", "validation", "test"):
        for pair in sections[section]:
            for key in ("moving", "fixed"):
                pair[key] = str(small_sample / pair[key])
            del pair["moving_label"], pair["fixed_label"]
    (tmp_path / "datalist.json").write_text(json.dumps(sections))
    result = bundle_run(TRAIN, dataset_dir=tmp_path, output_dir=tmp_path / "out", max_epochs=1, **SMALL)
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "ssim" in summary["after"] and "dice" not in summary["after"]


def four_labels(sample: Path, folder: Path) -> Path:
    """A copy of a sample whose liver is cut into four labels."""
    shutil.copytree(sample, folder)
    for file in folder.rglob("*label*.nii.gz"):
        image = nib.load(file)
        label = np.asarray(image.dataobj)
        cut = label * (1 + (np.arange(label.shape[0]) // 8 % 4)).reshape(-1, *[1] * (label.ndim - 1))
        nib.save(nib.Nifti1Image(cut.astype(np.uint8), image.affine), file)
    return folder


@pytest.mark.parametrize("bundle", ["fmirnet_chaos", "rfcn_chaos"])
def test_several_labels_are_counted_and_trained_with(bundle: str, joint_sample: Path, tmp_path: Path) -> None:
    data = four_labels(joint_sample, tmp_path / "data")
    assert count_classes(data / "datalist.json") == 5
    train = BUNDLES / bundle / "configs" / "train.json"
    result = bundle_run(train, dataset_dir=data, output_dir=tmp_path / "out", spatial_size=[48, 48], max_epochs=1)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "summary.json").is_file()


def test_volumes_for_a_bundle_of_slices_are_refused_in_one_line(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((24, 24, 12)), np.eye(4)), tmp_path / "volume.nii.gz")
    root = copied(tmp_path)
    pair = {key: str(tmp_path / "volume.nii.gz") for key in ("moving", "fixed")}
    result = bundle_run(root / "configs" / "inference.json", cwd=tmp_path, pairs=[pair], output_dir=tmp_path / "out")
    assert result.returncode != 0
    (line,) = [line for line in result.stderr.splitlines() if "error" in line]
    assert line.startswith("fmirnet: error: ") and "volume.nii.gz: has 3 axes" in line
    assert "Traceback" not in result.stderr
    assert not (root / "sample").exists() and not list(tmp_path.glob("out/*"))


def test_run_from_elsewhere_with_files_of_ones_own_makes_no_sample(small_sample: Path, tmp_path: Path) -> None:
    root = copied(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    pair = {k: v for k, v in load_pairs(small_sample / "datalist.json", "test")[0].items() if k in ("moving", "fixed")}
    result = bundle_run(root / "configs" / "inference.json", cwd=elsewhere, pairs=[pair])
    assert result.returncode == 0, result.stderr
    assert len(list((root / "eval").glob("*_warped.nii.gz"))) == 1
    assert not (root / "sample").exists() and not list(elsewhere.iterdir())


def copied(folder: Path) -> Path:
    """A copy of the bundle, under a name of its own."""
    return shutil.copytree(BUNDLE, folder / "mine", ignore=shutil.ignore_patterns("sample", "runs", "eval"))
