"""Each bundle's configs are whole in themselves; what several share stays equal, and this says where one may differ.

MONAI lays one config over another only within a bundle: ``%`` names a file from the current folder, and what is laid
over can't take a key away. So bundles repeat what they share, and a difference that is not listed here is a mistake.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from commands import BUNDLES

NAMES = sorted(path.parent.name for path in BUNDLES.glob("*/configs"))
OF_RUNS = {"initialize", "run", "finalize"}  # that MONAI reads by name
# from a bundle to one that has something over it: by config, the keys that differ
DIFFERENCES: dict[tuple[str, str], dict[str, set[str]]] = {
    ("runet_chaos", "rfcn_chaos"): {
        "train": {"network_def"},
        "inference": {"network_def"},
    },
    ("fmirnet_chaos", "fmirnet_echonet"): {
        "train": {"max_epochs", "window", "percentiles", "intensity", "sample"},
        "inference": {"window", "percentiles", "intensity", "run::0"},
        "variants/paper": {"loss::weights::ssim", "loss::weights::smoothness"},
    },
    ("fmirnet_chaos", "fmirnet_universal"): {
        "train": {
            *("max_epochs", "batch_size", "learning_rate", "spatial_size", "window", "percentiles", "intensity"),
            *("network_def::channels", "network_def::num_scales", "network_def::correlation"),
            *("validation_datalist", "num_classes", "prepare::1"),
            *("validate::dataset::data", "validate::key_metric", "validate::preprocessing::transforms"),
            *("loss", "registration_loss", "lr_scheduler", "warmup_steps", "total_steps"),  # learns from labels too
            *("average", "validate::evaluator::network", "train::handlers", "train::trainer::amp_kwargs"),
            *("labelled", "batch_keys", "train::trainer::prepare_batch"),
            *("canvas_size", "window_size", "zoom", "train::random_transforms"),  # windows of a larger canvas
            *("load_pair", "read_pair", "fit_window", "train::deterministic_transforms"),  # each image once
            *("pairs_per_epoch", "train::pairs", "train::sides", "train::dataset::data"),
            *("train::dataloader::sampler", "train::dataloader::pairs", "train::preprocessing::transforms"),
        },
        "inference": {
            *("spatial_size", "window", "percentiles", "intensity", "refine"),
            *("network_def::channels", "network_def::num_scales", "network_def::correlation"),
        },
        "multi_gpu_train": {"train#sampler", "train#dataloader#sampler"},
    },
    ("fmirnet_universal", "fmirnet_sliver"): {
        "train": {
            *("max_epochs", "pairs_per_epoch", "batch_size", "learning_rate", "segmentation_rate", "spatial_size"),
            *("window_size", "zoom", "canvas_size", "num_classes", "sample", "prepare"),
            *("registration_loss::weights::smoothness", "registration_loss::weights::folding"),
            *("network_def", "training_def", "network", "average::model", "optimizer::params", "loss::structures"),
            *("affine", "affine_stage", "load_pair", "read_pair", "fit_window", "validate::preprocessing::transforms"),
            *("train::deterministic_transforms", "train::random_transforms", "train::preprocessing::transforms"),
            *("train::dataset", "train::sides", "train::dataloader::pairs"),
            "train::handlers::8::noted::segmentation_rate",
        },
        "inference": {
            *("spatial_size", "num_classes", "network_def", "structures", "affine", "affine_stage", "run::0"),
            *("refinement_loss", "refine", "preprocessing::transforms", "postprocessing::transforms"),
            *(f"refinement::{name}" for name in ("similarity", "iterations", "step", "update_sigma")),
            *("refinement::field_sigma", "refinement::anchored"),
        },
        "multi_gpu_train": {"network::module"},
    },
}


@cache
def read(name: str, config: str) -> Any:
    """A config in which the bundle's own name doesn't count."""
    return json.loads((BUNDLES / name / "configs" / f"{config}.json").read_text().replace(f"'{name}'", "'NAME'"))


def configs(name: str) -> list[str]:
    folder = BUNDLES / name / "configs"
    files = [path.relative_to(folder).with_suffix("") for path in folder.rglob("*.json")]
    return sorted(str(path) for path in files if path.name != "metadata")


def differing(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Keys of what differs, none below something that is of another class."""
    if isinstance(one, dict) and isinstance(other, dict) and one.get("_target_") == other.get("_target_"):
        for key in one.keys() | other.keys():
            inner = f"{place}::{key}" if place else key
            if key not in one or key not in other:
                yield inner
            else:
                yield from differing(one[key], other[key], inner)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            if isinstance(a, int | float):
                yield from {place} if a != b else set()
            else:
                yield from differing(a, b, f"{place}::{index}")
    elif one != other:
        yield place


@pytest.mark.parametrize("pair", DIFFERENCES, ids="-".join)
def test_bundles_differ_where_they_may_and_nowhere_else(pair: tuple[str, str]) -> None:
    base, other = pair
    shared = [config for config in configs(base) if config in configs(other)]
    found = {config: set(differing(read(base, config), read(other, config))) for config in shared}
    assert {config: keys for config, keys in found.items() if keys} == DIFFERENCES[pair]


def test_every_bundle_is_compared_with_another_of_its_kind() -> None:
    assert {name for pair in DIFFERENCES for name in pair} == set(NAMES)


def test_files_that_all_have_are_the_same() -> None:
    for file in ("LICENSE", "configs/logging.conf"):
        assert len({(BUNDLES / name / file).read_bytes() for name in NAMES}) == 1, file
    for key in ("schema", "monai_version", "pytorch_version", "numpy_version", "authors", "copyright"):
        assert len({read(name, "metadata")[key] for name in NAMES}) == 1, key


def test_pairs_are_read_alike() -> None:
    """Where a step stands in another list, equal keys say nothing."""
    chaos = read("fmirnet_chaos", "train")["load_pair"]
    universal, sliver = (read(f"fmirnet_{name}", "train") for name in ("universal", "sliver"))
    assert universal["read_pair"] + universal["fit_window"] == chaos
    own = ("Orientationd", "fmirnet_monai.registration.Registerd")
    assert [step for step in sliver["load_pair"] if step["_target_"] not in own] == chaos
    for name in ("chaos", "universal"):
        assert read(f"fmirnet_{name}", "inference")["preprocessing"]["transforms"] == chaos


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_is_whole_in_itself(name: str) -> None:
    for config in configs(name):
        text = json.dumps(read(name, config))
        assert '"%' not in text, config  # a part of another file
        for other in set(NAMES) - {name}:
            assert other not in text or (other, Path(config).name) == ("fmirnet_universal", "pretrained"), config


@pytest.mark.parametrize("name", NAMES)
def test_what_is_laid_over_a_config_is_read(name: str) -> None:
    train = read(name, "train")
    for config in set(configs(name)) - {"train", "inference"}:
        overlay = read(name, config)
        for key in overlay.keys() - OF_RUNS:
            assert key.split("#")[0] in train or f"@{key}" in json.dumps(overlay), f"{config}: nothing reads {key}"
