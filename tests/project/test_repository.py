"""What the repository says of itself: rooms, versions, workflows, forms and hooks."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import BUNDLES, REPOSITORY

PACKAGE = REPOSITORY / "fmirnet_monai"
GITHUB = REPOSITORY / ".github"
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
ACTIONS = sorted(GITHUB.glob("actions/*/action.yml"))
FORMS = sorted(path for path in GITHUB.glob("ISSUE_TEMPLATE/*.yml") if path.stem != "config")
SCHEMAS = {  # of check-jsonschema, which brings them along
    "github-workflows": WORKFLOWS,
    "github-actions": ACTIONS,
    "github-issue-forms": FORMS,
    "github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
    "dependabot": [GITHUB / "dependabot.yml"],
    "citation-file-format": [REPOSITORY / "CITATION.cff"],
}
LOCAL = "./"


def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg")
    return parser


def rooms() -> list[str]:
    """Folders and modules of the package, and the repository's own folders, which its source distribution names."""
    inside = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or any(path.rglob("*.py"))]
    names = [path.stem for path in inside if not path.name.startswith("__")]
    folders = re.findall(r"^graft (\S+)$", (REPOSITORY / "MANIFEST.in").read_text(), re.MULTILINE)
    return sorted({*names, *folders} - {PACKAGE.name})


def mappings(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in what a YAML file holds."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from mappings(item)


def steps() -> list[tuple[Path, dict[str, Any]]]:
    """Each step of each workflow and action, with its file."""
    found = [(path, item) for path in [*WORKFLOWS, *ACTIONS] for item in mappings(yaml.safe_load(path.read_text()))]
    return [(path, item) for path, item in found if "uses" in item or "run" in item]


@pytest.mark.parametrize("room", rooms())
def test_every_room_is_described(room: str) -> None:
    rows = [line for line in (REPOSITORY / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| `")]
    assert [row for row in rows if f"`{room}`" in row.split("|")[1]], f"CONTRIBUTING.md: no row on {room}"


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_of_services_follow_their_schemas(schema: str) -> None:
    words = ["check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, SCHEMAS[schema])]
    checked = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
    assert SCHEMAS[schema] and checked.returncode == 0, checked.stdout + checked.stderr


def test_one_version_everywhere() -> None:
    version = setup()["metadata"]["version"]
    assert yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())["version"] == version
    metadata = [json.loads(path.read_text()) for path in BUNDLES.glob("*/configs/metadata.json")]
    assert {item["required_packages_version"]["fmirnet_monai"] for item in metadata} == {version}
    headings = re.findall(r"^## (\S+)", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", version]


def test_the_citation_says_what_the_package_says() -> None:
    metadata, citation = setup()["metadata"], yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["title"] == metadata["name"]
    assert citation["license"] in metadata["license"]
    assert [author["name"].lower() for author in citation["authors"]] == [metadata["author"]]
    assert citation["repository-code"] == metadata["url"]


def test_the_package_is_tested_on_the_versions_of_python_that_it_names() -> None:
    named = set(re.findall(r"Python :: (3\.\d+)", setup()["metadata"]["classifiers"]))
    jobs = [job for path in WORKFLOWS for job in yaml.safe_load(path.read_text())["jobs"].values()]
    tested = [set(job["strategy"]["matrix"]["python"]) for job in jobs if "strategy" in job]
    assert len(tested) == 2  # from source, and as a user installs it
    assert all(versions == named for versions in tested)


def test_actions_are_pinned_and_local_ones_are_there() -> None:
    used = [(path, item["uses"]) for path, item in steps() if "uses" in item]
    for path, name in used:
        if name.startswith(LOCAL):
            assert (REPOSITORY / name / "action.yml").is_file(), f"{path.name}: {name}"
        else:
            assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", name), f"{path.name}: {name}"
    pins = {name for _, name in used if not name.startswith(LOCAL)}
    assert len(pins) == len({name.split("@")[0] for name in pins})  # one version of each


def test_what_workflows_make_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    made = {word for _, item in steps() for word in re.findall(r"^make ([\w-]+)", item.get("run", ""), re.MULTILINE)}
    assert {"lint", "test", "test-all", "docs"} == made
    assert made <= targets


def test_a_workflow_may_read_and_no_more() -> None:
    for path in WORKFLOWS:
        content = yaml.safe_load(path.read_text())
        assert content["permissions"] == {"contents": "read"}, path.name
        raised = {name: job["permissions"] for name, job in content["jobs"].items() if "permissions" in job}
        assert raised in ({}, {"release": {"contents": "write"}}), path.name
        assert all(job["timeout-minutes"] <= 120 for job in content["jobs"].values()), path.name


def test_commits_are_checked_by_the_environment_s_own_tools() -> None:
    """So their versions stand in setup.cfg alone, exactly."""
    config = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())
    (local,) = [repository["hooks"] for repository in config["repos"] if repository["repo"] == "local"]
    tools = {hook["entry"].split()[0] for hook in local if hook["language"] == "system"}
    assert tools == {".venv/bin/ruff", ".venv/bin/mypy"}
    pinned = re.findall(r"^(\S+) == \S+$", setup()["options.extras_require"]["test"], re.MULTILINE)
    assert {Path(tool).name for tool in tools} <= set(pinned)
    assert all(re.fullmatch(r"v[\d.]+", repository["rev"]) for repository in config["repos"] if "rev" in repository)


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_no_form_asks_for_a_patient(form: Path) -> None:
    content = yaml.safe_load(form.read_text())
    said = form.read_text()
    assert "patient's data" in said or form.stem == "feature"
    if form.stem in ("bug", "wrong_registration"):
        boxes = [item for item in content["body"] if item["type"] == "checkboxes"]
        assert boxes[0]["attributes"]["options"][0]["required"]
        assert "metrics.json" in said
