"""A bundle is read as data: what it would run is refused by name before anything is made, unless it is trusted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from fmirnet_monai import cli
from fmirnet_monai.bundle import load_network, published_weights, read_config, weights_file
from fmirnet_monai.bundle_config import listed_class
from fmirnet_monai.registration import DenseOptimizer, Registrar

BUNDLES = Path(__file__).parents[1] / "bundles"
REGISTRATION = ("fmirnet_chaos", "fmirnet_echonet", "fmirnet_universal", "fmirnet_sliver")
NEEDED = (
    "network_def",
    "weights",
    "spatial_size",
    "intensity",
    "affine",
    "refine",
    "refinement",
    "structures",
    "window",
)
CODE = "$__import__('pathlib').Path('{}').touch()"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of a bundle that says all that one can say."""
    return shutil.copytree(
        BUNDLES / "fmirnet_sliver", tmp_path / "bundle", ignore=shutil.ignore_patterns("sample", "runs", "eval")
    )


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    """Words of a command that registers a small pair of slices."""
    image = np.kron(np.random.default_rng(0).normal(size=(8, 8)), np.ones((4, 4))).astype(np.float32)
    for name, shift in (("moving", 0), ("fixed", 1)):
        nib.save(nib.Nifti1Image(np.roll(image, shift, 0), np.eye(4)), tmp_path / f"{name}.nii.gz")
    return [f"--{name}={tmp_path / name}.nii.gz" for name in ("moving", "fixed")] + ["--report=false", "--device=cpu"]


def change(bundle: Path, key: str, value: Any) -> None:
    """Put a value at a place such as ``network_def#channels`` of a bundle's inference config."""
    file = bundle / "configs" / "inference.json"
    config = json.loads(file.read_text())
    *way, last = key.split("#")
    part = config
    for name in way:
        part = part[name]
    part[last] = value
    file.write_text(json.dumps(config))


def strings(value: Any) -> list[str]:
    if isinstance(value, (dict, list)):
        return [text for item in (value.values() if isinstance(value, dict) else value) for text in strings(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("name", sorted(folder.name for folder in BUNDLES.iterdir()))
def test_what_is_needed_stands_there_as_values(name: str) -> None:
    config = json.loads((BUNDLES / name / "configs" / "inference.json").read_text())
    said = [text for key in NEEDED if key in config for text in strings(config[key])]
    assert said and not any(text.startswith("$") for text in said)
    assert isinstance(read_config(BUNDLES / name).get("network_def"), torch.nn.Module)


@pytest.mark.parametrize("name", [*REGISTRATION[:-1], pytest.param(REGISTRATION[-1], marks=pytest.mark.slow)])
def test_read_as_data_or_run_a_bundle_registers_alike(name: str) -> None:
    images = torch.rand(2, 1, *[32] * (3 if name == "fmirnet_sliver" else 2))
    registrars = [Registrar.from_bundle(BUNDLES / name, 3, trusted=trusted) for trusted in (False, True)]
    fields = [registrar.register(*images).field.ddf for registrar in registrars]
    assert torch.equal(*fields)


PLACES = {
    "network_def": CODE,
    "network_def#registration#channels": CODE,
    "intensity": CODE,
    "intensity#lower": CODE,
    "spatial_size": CODE,
    "spatial_size#0": CODE,
    "percentiles": CODE,  # which the intensity refers to
    "affine": CODE,
    "refine": CODE,
    "refinement": CODE,
    "refinement#iterations": [CODE],
    "structures": CODE,
}


@pytest.mark.parametrize("place", PLACES)
def test_an_expression_is_refused_by_name_and_not_run(place: str, bundle: Path, tmp_path: Path) -> None:
    value = json.loads(json.dumps(PLACES[place]).replace("{}", str(tmp_path / "touched")))
    key = place.removesuffix("#0")
    change(bundle, key, [value] * 3 if place.endswith("#0") else value)
    with pytest.raises(ValueError, match=r"inference\.json: .*would have to be evaluated; give --trust_bundle true"):
        Registrar.from_bundle(bundle, None)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "target",
    [
        *("os.system", "subprocess.run", "builtins.eval", "torch.load", "torch.hub.load", "pickle.loads"),
        *("monai.bundle.run", "monai.networks.nets.HoVerNet", "monai.networks.nets.TorchVisionFCModel", "HoVerNet"),
        *("monai.networks.nets.os.UNet", "monai.losses.PerceptualLoss", "monai.transforms.Lambda", "Lambda"),
        *("fmirnet_monai.registration.load_extractor", "fmirnet_monai.bundle.load_network"),
        *("torch.nn.utils.rnn.pad_sequence", "torch.nn.init.zeros_", "@target", "", "scripts.bundle.load_network"),
    ],
)
@pytest.mark.parametrize("place", ["network_def", "intensity"])
def test_only_listed_classes_are_made(place: str, target: str, bundle: Path, tmp_path: Path) -> None:
    change(bundle, "target", "os.system")
    change(bundle, place, {"_target_": target, "command": f"touch {tmp_path / 'touched'}"})
    with pytest.raises(ValueError, match=r"is none of the networks, losses and intensities.*--trust_bundle true"):
        Registrar.from_bundle(bundle)
    assert not (tmp_path / "touched").exists() and listed_class(target) is None


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"_requires_": "@imports"}, "_requires_: is not read as data"),
        ({"_mode_": "debug"}, "_mode_: is not read as data"),
        ({"channels": "%/etc/passwd"}, "would have to be evaluated"),
        ({"channels": "@elsewhere"}, "refers to 'elsewhere', which the config has not"),
        ({"channels": "many"}, "network_def: can't be made: "),
        ({"chanels": [4, 8]}, "network_def: can't be made: .*chanels"),
        ({"spatial_dims": 7}, "network_def: can't be made: "),
    ],
)
def test_what_else_a_config_may_say_is_told_in_one_line(extra: dict[str, Any], message: str, bundle: Path) -> None:
    for key, value in extra.items():
        change(bundle, f"network_def#registration#{key}", value)
    with pytest.raises(ValueError, match=message) as told:
        load_network(bundle)
    assert "inference.json" in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("where", ["variant", "override"])
def test_what_is_laid_over_a_config_is_read_as_data_too(where: str, bundle: Path, tmp_path: Path) -> None:
    change_of = {"intensity": CODE.format(tmp_path / "touched")}
    (bundle / "configs" / "variants" / "own.json").write_text(json.dumps(change_of if where == "variant" else {}))
    with pytest.raises(ValueError, match=r"intensity: .* would have to be evaluated"):
        Registrar.from_bundle(bundle, variant="own", overrides=change_of if where == "override" else None)
    assert not (tmp_path / "touched").exists()


COMMANDS = {
    "register": ["register", "--output_dir=out"],
    "compare": ["compare", "--output_dir=out", "--methods=fmirnet", "--datalist=list.json"],
    "profile": ["profile"],
    "export": ["bundle", "export", "--output_dir=out"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_refuse_it_and_trust_it_when_told_to(
    command: str, pair: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "fmirnet_chaos"
    bundle = shutil.copytree(BUNDLES / name, tmp_path / name, ignore=shutil.ignore_patterns("sample", "runs", "eval"))
    change(bundle, "network_def#num_scales", f"{CODE.format(tmp_path / 'touched')} or 3")
    item = {key: f"{key}.nii.gz" for key in ("moving", "fixed")}
    (tmp_path / "list.json").write_text(json.dumps({"training": [], "validation": [], "test": [item]}))
    words = [*COMMANDS[command], f"--bundle={bundle}", *(pair if command == "register" else [])]
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2 and "--trust_bundle true" in capsys.readouterr().err
    assert not (tmp_path / "touched").exists()
    if command == "register":  # the others take longer
        cli.main([*words, "--trust_bundle", "true"])
        assert (tmp_path / "touched").exists()


def test_classes_are_found_by_short_and_by_long_names_and_in_an_exported_bundle() -> None:
    assert (
        listed_class("UNet")
        is listed_class("monai.networks.nets.UNet")
        is listed_class("monai.networks.nets.unet.UNet")
    )
    assert listed_class("torch.nn.MSELoss") is torch.nn.MSELoss
    assert listed_class("scripts.registration.DenseOptimizer") is DenseOptimizer
    blocks = ("fmirnet_monai.networks.blocks.ResUNet", "scripts.networks.blocks.ResUNet")
    assert listed_class(blocks[0]) is listed_class(blocks[1]) is not None


def test_weights_lie_where_the_config_says(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.pt").touch()
    assert weights_file("own.pt", bundle) == "own.pt"
    published = bundle / "models" / "model.pt"
    assert weights_file("models/model.pt", bundle) == str(published) == str(published_weights(bundle))
    published.rename(bundle / "models" / "other.pt")
    change(bundle, "weights", "models/other.pt")
    assert published_weights(bundle) == bundle / "models" / "other.pt"
    assert isinstance(load_network(bundle), torch.nn.Module)


def test_a_config_that_is_no_object_is_named(bundle: Path) -> None:
    for text in ("[1]", "{", "[" * 100_000, "\xff"):
        (bundle / "configs" / "inference.json").write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=r"inference\.json: (not valid JSON|expected a JSON object)"):
            load_network(bundle)
