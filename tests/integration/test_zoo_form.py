"""Every bundle in the form of MONAI's model zoo: files, pages, versions, and MONAI's own verification."""

from __future__ import annotations

import json
import re
from pathlib import Path

import monai.bundle
import pytest
import torch
from commands import BUNDLES, REPOSITORY, SCHEMA
from monai.bundle import ConfigParser

from fmirnet_monai.bundle import load_network
from fmirnet_monai.utils import package_version

EVERY = sorted(path.parent for path in BUNDLES.glob("*/configs"))
FILES = (
    "LICENSE",
    "models/model.pt",
    *(f"configs/{name}.json" for name in ("metadata", "train", "inference", "evaluate")),
)
PAGES = ("docs/README.md", "docs/data_license.txt")
HEADINGS = (
    *("# Description", "# Model Overview", "## Data", "## Preprocessing", "## Training configuration"),
    *("## Performance", "## MONAI bundle Commands", "# References", "# License"),
)
PARTS = ("configs", "docs", "models")
LIMIT = 25 * 2**20  # bytes; the zoo takes larger files by address only

every = pytest.mark.parametrize("bundle", EVERY, ids=lambda path: path.name)


@every
def test_files_are_there_and_small_and_name_no_machine(bundle: Path) -> None:
    assert all((bundle / name).is_file() for name in FILES)
    for path in [bundle / "LICENSE", *(p for part in PARTS for p in (bundle / part).rglob("*") if p.is_file())]:
        content = path.read_bytes()
        assert len(content) <= LIMIT, path
        assert not re.search(rb"(?<![\w.])/(home|Users|root|mnt|work)/", content), path


@every
def test_pages_have_the_headings_in_order(bundle: Path) -> None:
    assert all((bundle / page).is_file() for page in PAGES)
    lines = (bundle / "docs" / "README.md").read_text().splitlines()
    assert [line for line in lines if line in HEADINGS] == list(HEADINGS)


@every
def test_metadata_follows_the_schema(bundle: Path) -> None:
    file = bundle / "configs" / "metadata.json"
    monai.bundle.verify_metadata(meta_file=str(file), filepath=str(SCHEMA))
    metadata = json.loads(file.read_text())
    assert next(iter(metadata["changelog"])) == metadata["version"]  # the newest first


@every
def test_metadata_names_the_versions_everything_is_tested_with(bundle: Path) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line)
    tested["fmirnet_monai"] = package_version("fmirnet_monai")
    own = {"torch": "pytorch", "monai": "monai", "numpy": "numpy"}
    named = {name: metadata[f"{field}_version"] for name, field in own.items()}
    named |= metadata["required_packages_version"]
    assert named == {name: tested[name] for name in named}


@every
def test_network_gives_what_the_metadata_says_and_can_be_scripted(bundle: Path) -> None:
    metadata, config = (str(bundle / "configs" / f"{name}.json") for name in ("metadata", "inference"))
    monai.bundle.verify_net_in_out("network_def", meta_file=metadata, config_file=config)
    parser = ConfigParser()
    parser.read_config(config)
    torch.jit.script(parser.get_parsed_content("network_def"))


@every
def test_scripted_export_gives_the_same_answer(bundle: Path, tmp_path: Path) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    monai.bundle.ckpt_export(
        "network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(bundle / "models" / "model.pt"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
    )
    shape = metadata["network_data_format"]["inputs"]["image"]
    image = torch.rand(1, shape["num_channels"], *shape["spatial_shape"])
    with torch.no_grad():
        expected = load_network(bundle)(image)
        torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts")(image), expected, rtol=0, atol=1e-4)
