"""The Dockerfile as text: what it takes from the repository is there, and it keeps the promises of its page."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from pathlib import Path

import pytest
from commands import REPOSITORY
from packaging.specifiers import SpecifierSet

PAGE = REPOSITORY / "docs" / "how-to" / "container.md"
Stage = list[tuple[str, str]]
Stages = dict[str, Stage]
SOURCES = ("bundles", "fmirnet_monai", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "constraints.txt")


def stages(text: str) -> Stages:
    """The instructions of each stage of a Dockerfile by its name, ``FROM`` in front; those before any under ``""``."""
    found: Stages = {"": []}
    name = ""
    for line in re.sub(r"\\\n\s*|^#.*$", "", text, flags=re.MULTILINE).splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            rest, _, name = rest.partition(" AS ")
            found[name] = []
        if word:
            found[name].append((word, rest))
    return found


@pytest.fixture(scope="module")
def dockerfile() -> Stages:
    return stages((REPOSITORY / "Dockerfile").read_text())


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg")
    return parser


def given(stage: Stage, word: str) -> list[str]:
    return [rest for name, rest in stage if name == word]


def test_images_end_in_slim_stages_with_nothing_of_the_build(dockerfile: Stages) -> None:
    assert list(dockerfile)[-1] == "cpu"  # what docker build makes where no target is named
    for target in ("cpu", "cuda"):
        assert given(dockerfile[target], "FROM") == ["runtime"]
        assert given(dockerfile[target], "COPY") == [f"--from=packages-{target} /opt/fmirnet /opt/fmirnet"]
    assert given(dockerfile["runtime"], "FROM") == ["python:${PYTHON}"] == given(dockerfile["wheel"], "FROM")
    assert not [rest for name in ("cpu", "cuda", "runtime") for rest in given(dockerfile[name], "RUN") if "pip" in rest]


def test_python_is_a_tested_one_and_pinned(dockerfile: Stages, setup: configparser.ConfigParser) -> None:
    (tag,) = given(dockerfile[""], "ARG")
    version = re.fullmatch(r"PYTHON=(\d+\.\d+\.\d+)-slim-[a-z]+", tag)
    assert version
    assert version[1] in SpecifierSet(setup["options"]["python_requires"])
    mypy = re.search(r'python_version = "(.+)"', (REPOSITORY / "pyproject.toml").read_text())
    assert mypy and version[1].startswith(f"{mypy[1]}.")


def test_it_runs_as_any_user_but_root(dockerfile: Stages) -> None:
    runtime = dockerfile["runtime"]
    user, group = given(runtime, "USER")[0].split(":")
    assert int(user) > 0 < int(group)
    environment = dict(word.split("=", 1) for rest in given(runtime, "ENV") for word in shlex.split(rest))
    assert environment["HOME"] == "/tmp" and environment["LOGNAME"]  # MONAI asks for a name, which a number has not
    assert given(runtime, "WORKDIR") == ["/data"]
    assert any("1777 /data" in rest for rest in given(runtime, "RUN"))
    assert all(name not in ("USER", "ENTRYPOINT") for target in ("cpu", "cuda") for name, _ in dockerfile[target])


def test_its_command_is_the_package_s(dockerfile: Stages, setup: configparser.ConfigParser) -> None:
    (command,) = json.loads(given(dockerfile["runtime"], "ENTRYPOINT")[0])
    assert f"{command} = " in setup["options.entry_points"]["console_scripts"]
    assert environment_folder(dockerfile) in given(dockerfile["runtime"], "ENV")[0]


def environment_folder(dockerfile: Stages) -> str:
    (folder,) = re.findall(r"VIRTUAL_ENV=(\S+)", " ".join(given(dockerfile["wheel"], "ENV")))
    return folder


def test_versions_and_extras_are_those_of_the_package(dockerfile: Stages, setup: configparser.ConfigParser) -> None:
    installs = [rest for stage in dockerfile.values() for rest in given(stage, "RUN") if "pip install" in rest]
    assert len(installs) == 3
    assert all("--constraint constraints.txt" in rest for rest in installs)
    assert re.search(r"^uv==[\d.]+$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    for target in ("cpu", "cuda"):
        (extras,) = [rest for rest in given(dockerfile[f"packages-{target}"], "ARG") if rest.startswith("EXTRAS=")]
        assert set(extras.removeprefix("EXTRAS=").split(",")) <= set(setup["options.extras_require"])
    (terms,) = re.findall(r'licenses="(.*?)"', " ".join(given(dockerfile["runtime"], "LABEL")))
    assert terms == setup["metadata"]["license"]


def test_the_build_sees_what_the_wheel_is_made_of_and_nothing_else() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    allowed = {line[1:] for line in rules if line.startswith("!")}
    assert rules[0] == "*"
    assert set(SOURCES) <= allowed <= {*SOURCES, "MANIFEST.in", "setup.py"}
    assert all((REPOSITORY / name).exists() for name in SOURCES)
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert {f"{line}/" for line in rules if line.startswith("bundles/")} == {
        line for line in ignored if line.startswith("bundles/")
    }


def test_the_page_names_the_targets_and_arguments_that_there_are(
    dockerfile: Stages,
) -> None:
    page = PAGE.read_text()
    assert set(re.findall(r"--target (\w+)", page)) <= set(dockerfile)
    arguments = {rest.split("=")[0] for stage in dockerfile.values() for rest in given(stage, "ARG")}
    assert set(re.findall(r"--build-arg (\w+)=", page)) == arguments


def test_a_stage_is_read_with_its_lines_joined(tmp_path: Path) -> None:
    text = "ARG A=1\n# FROM nothing\nFROM one AS first\nRUN a \\\n    b\n\nFROM first AS second\n"
    expected = {"": [("ARG", "A=1")], "first": [("FROM", "one"), ("RUN", "a b")], "second": [("FROM", "first")]}
    assert stages(text) == expected
