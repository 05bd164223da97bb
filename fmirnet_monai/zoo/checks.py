"""The model zoo's own checks of a bundle, in a process that can't import this package.

Run by its path from the folder that has ``models`` and ``ci``, as the zoo runs its checks from its root::

    python -P checks.py NAME SCHEMA RESULT

``RESULT`` gets a JSON object of what was found by what was checked. The first check that fails ends the process.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any, NoReturn

import torch
from monai.bundle import ConfigParser, ckpt_export, load, verify_metadata, verify_net_in_out
from monai.bundle.properties import InferProperties, TrainProperties
from monai.utils import BundleProperty, BundlePropertyConfig

FILES = ("LICENSE", "configs/metadata.json", "configs/inference.json", "models/model.pt")
PERSONAL = re.compile(r"(?<![\w.])/(home|Users|root|mnt|work)/")
TOLERANCE = 1e-4  # voxels of a field, or units of scores


class WithoutPackage:
    """A finder of modules that has none of this package, wherever it is installed."""

    def find_spec(self, name: str, *_: Any) -> None:
        """Nothing, so that other finders are asked, but for this package."""
        if name.split(".", maxsplit=1)[0] == "fmirnet_monai":
            raise ModuleNotFoundError(f"{name}: is not part of the bundle", name=name)


def check_files(bundle: Path, metadata: dict[str, Any]) -> str:
    """The files that the zoo requires, and no paths of somebody's machine in configs."""
    for name in FILES:
        if not (bundle / name).is_file():
            fail(f"{name} is missing")
    for file in (bundle / "configs").rglob("*.json"):
        if found := PERSONAL.search(file.read_text()):
            fail(f"{file.name} names {found[0]}")
    return ", ".join(FILES)


def check_version(bundle: Path, metadata: dict[str, Any]) -> str:
    """The version stands in the changelog."""
    version = metadata["version"]
    if version not in metadata["changelog"]:
        fail(f"version {version} is not in the changelog")
    return f"{version}: {metadata['changelog'][version]}"


def check_names(bundle: Path, metadata: dict[str, Any]) -> str:
    """The keys that MONAI's applications ask for."""
    for name, properties in (("train", TrainProperties), ("inference", InferProperties)):
        parser = read(bundle, name)
        required = [item[BundlePropertyConfig.ID] for item in properties.values() if item[BundleProperty.REQUIRED]]
        for key in map(str, required):
            if key not in parser:
                fail(f"{name}.json has no {key}")
    return "train.json and inference.json have each that is required"


def check_shape(bundle: Path, metadata: dict[str, Any]) -> str:
    """``verify_net_in_out``: the network gives what the metadata says."""
    config, meta = (str(bundle / "configs" / f"{name}.json") for name in ("inference", "metadata"))
    verify_net_in_out("network_def", meta_file=meta, config_file=config, bundle_root=str(bundle))
    formats = metadata["network_data_format"]
    ends = [formats["inputs"]["image"], formats["outputs"]["pred"]]
    return " to ".join(f"{end['num_channels']} x {' x '.join(map(str, end['spatial_shape']))}" for end in ends)


def check_torchscript(bundle: Path, metadata: dict[str, Any]) -> str:
    """``ckpt_export``: the network that ``monai.bundle.load`` finds can be scripted, and then gives the same."""
    config, meta = (str(bundle / "configs" / f"{name}.json") for name in ("inference", "metadata"))
    with tempfile.TemporaryDirectory() as folder:
        exported = str(Path(folder) / "verify_model.ts")
        ckpt_export(
            "network_def",
            filepath=exported,
            ckpt_file=str(bundle / "models" / "model.pt"),
            meta_file=meta,
            config_file=config,
            bundle_root=str(bundle),
        )
        scripted = torch.jit.load(exported, map_location="cpu")
    network = load(bundle.name, bundle_dir=bundle.parent, workflow_type="inference", source="github", device="cpu")
    shape = metadata["network_data_format"]["inputs"]["image"]
    image = torch.rand(1, shape["num_channels"], *shape["spatial_shape"])
    with torch.no_grad():
        difference = float((scripted(image) - network.eval()(image)).abs().max())  # type: ignore[union-attr]
    if not difference <= TOLERANCE:
        fail(f"TorchScript differs by {difference:.2g}")
    return f"differs by {difference:.1g} at most from what monai.bundle.load gives"


def check_unit_tests(bundle: Path, metadata: dict[str, Any]) -> str:
    """The bundle's unit test, which trains, evaluates and infers."""
    sys.path.append(str(Path("ci", "unit_tests").resolve()))
    tests = unittest.defaultTestLoader.loadTestsFromName(f"test_{bundle.name}")
    result = unittest.TextTestRunner().run(tests)
    if not result.wasSuccessful():
        fail((result.failures + result.errors)[0][1].strip().splitlines()[-1])
    return f"{result.testsRun} passed"


CHECKS = {
    "files": check_files,
    "version and changelog": check_version,
    "names of keys": check_names,
    "shapes of input and output": check_shape,
    "TorchScript": check_torchscript,
}


def read(bundle: Path, name: str) -> ConfigParser:
    """A config of the bundle."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / f"{name}.json"))
    return parser


def fail(reason: str) -> NoReturn:
    """End with what is wrong."""
    sys.exit(reason)


def main(name: str, schema: str, result: str, unit_tests: bool = True) -> None:
    """All checks of ``models/NAME``, into the file ``result``."""
    bundle = Path("models", name)
    sys.meta_path.insert(0, WithoutPackage())
    sys.path.insert(0, str(bundle.resolve()))  # as the zoo does
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    found = {what: check(bundle, metadata) for what, check in CHECKS.items()}
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=schema)
    found["metadata"] = Path(schema).name
    if unit_tests:
        found["unit tests"] = check_unit_tests(bundle, metadata)
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], unit_tests="--no-unit-tests" not in sys.argv)
