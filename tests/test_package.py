"""What is installed: sdist and wheel are whole, and the wheel works from elsewhere with what it asks for alone."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import BUNDLES, REPOSITORY
from packaging.requirements import Requirement

IGNORED = (".git", ".venv*", "work", "build", "dist", "*.egg-info", ".*_cache", ".hypothesis", "runs", "sample", "eval")
GIGABYTE = 10**9
BYTECODE = 1.2  # bytes for each of a module's source, as of ITK's
BLOCK = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    '''Packages that a plain install does not bring.'''
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def canonical(name: str) -> str:
    return name.lower().replace("_", "-")


def requirements(name: str) -> set[str]:
    """The distributions that one brings, itself included, without its extras."""
    found = {canonical(name)}
    for text in importlib.metadata.requires(name) or ():
        asked = Requirement(text)
        if canonical(asked.name) not in found and (asked.marker is None or asked.marker.evaluate({"extra": ""})):
            found |= requirements(asked.name)
    return found


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of sdist and wheel, the latter built from the former."""
    tree = tmp_path_factory.mktemp("build") / "tree"
    shutil.copytree(REPOSITORY, tree, ignore=shutil.ignore_patterns(*IGNORED))
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tree / "dist"), str(tree)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return tree / "dist"


def tracked() -> set[str]:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("what belongs to the project is asked of git, and this is no repository")
    words = ["git", "-C", str(REPOSITORY), "ls-files"]
    return set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines())


def test_the_sdist_holds_the_whole_repository(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked() - held == set()


def test_the_wheel_holds_package_and_bundles_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    own = {name for name in tracked() if name.startswith("fmirnet_monai/")}
    bundles = {f"fmirnet_monai/{name}" for name in tracked() if name.startswith("bundles/")}
    assert held == own | bundles


def paths(distribution: str) -> list[Path]:
    return [Path(str(file.locate())) for file in importlib.metadata.files(distribution) or ()]


def installed_size(path: Path) -> float:
    """Bytes of a file, of a module with the bytecode that pip makes of it, whether it is there or not."""
    if path.suffix == ".pyc" or not path.exists():
        return 0.0
    return path.stat().st_size * (1 + BYTECODE * (path.suffix == ".py"))


def test_a_plain_install_takes_less_than_a_gigabyte_beside_torch() -> None:
    sizes = {
        name: sum(map(installed_size, paths(name)))
        for name in requirements("fmirnet_monai") - requirements("torch") - {"fmirnet-monai"}
    }
    bundles = sum(file.stat().st_size for file in BUNDLES.rglob("*") if file.is_file())
    assert sum(sizes.values()) + bundles < GIGABYTE, sizes


def plain_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XDG_"))}


@dataclass(frozen=True)
class Installed:
    """The wheel in an environment of its own, with a plain install's packages alone, and another folder to work in."""

    python: Path
    home: Path
    work: Path

    @property
    def package(self) -> Path:
        (folder,) = self.python.parents[1].glob("lib/*/site-packages/fmirnet_monai")
        return folder

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        environment = plain_environment() | {
            "HOME": str(self.home),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        program = [str(self.python.parent / "fmirnet")] if words[0] != "-m" else [str(self.python)]
        words = tuple(map(str, words))
        return subprocess.run(
            [*program, *words], cwd=self.work, env=environment, capture_output=True, text=True, check=False
        )


def packages_of(names: set[str]) -> set[str]:
    """Modules at the top of distributions."""
    found = importlib.metadata.packages_distributions()
    return {module for module, owners in found.items() if set(map(canonical, owners)) & names}


def absent() -> set[str]:
    """Packages that are here, and not in a plain install."""
    plain = requirements("fmirnet_monai")
    others = {canonical(found.metadata["Name"] or "") for found in importlib.metadata.distributions()} - plain
    return packages_of(others) - packages_of(plain)


def link_core_of_itk(site: Path) -> None:
    """Put ITK's core alone in front of the whole ITK that is here."""
    for file in importlib.metadata.files("itk-core") or ():
        if file.parts[0] in ("itk", "itkConfig.py", "itk_core.libs") and "__pycache__" not in file.parts:
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            (site / file).symlink_to(Path(str(file.locate())))


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    python = folder / "env" / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    words = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(words, check=True, capture_output=True, cwd=folder, env=plain_environment())
    (site,) = folder.glob("env/lib/*/site-packages")
    (site / "others.pth").write_text(str(Path(str(importlib.metadata.distribution("torch").locate_file("")))))
    (site / "sitecustomize.py").write_text(BLOCK.format(packages=absent()))
    link_core_of_itk(site)
    found = Installed(python, folder / "home", folder / "work")
    found.home.mkdir()
    found.work.mkdir()
    before = contents(found.package)
    yield found
    assert contents(found.package) == before


def contents(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc")
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_the_demo_shows_a_registration_and_tells_the_terms_once(installed: Installed) -> None:
    first = installed.run("demo")
    assert first.returncode == 0, first.stderr
    page = Path(first.stdout.splitlines()[-1])
    assert page.name == "report.html" and page.is_file() and "verdict: good" in first.stdout
    metrics = json.loads((page.parent / "metrics.json").read_text())["metrics"]
    assert metrics["before_tre_mean"] > 5.0 and metrics["tre_mean"] < 2.0
    assert str(installed.package) in metrics_bundle(page) and [*installed.work.iterdir()] == []
    assert first.stderr.count("CC-BY-NC-SA-4.0") == 1
    words = ("--moving", page.parent / "input" / "moving.nii.gz", "--fixed", page.parent / "input" / "fixed.nii.gz")
    again = installed.run("register", *words, "--output_dir", "out", "--report", "false", "--metrics", "false")
    assert again.returncode == 0 and "CC-BY" not in again.stderr, again.stderr
    shutil.rmtree(page.parent)


def metrics_bundle(page: Path) -> str:
    return json.loads((page.parent / "metrics.json").read_text())["settings"]["bundle"]


def test_a_bundle_is_trained_from_a_copy(installed: Installed) -> None:
    inside = installed.package / "bundles" / "fmirnet_chaos"
    refused = installed.run("-m", "monai.bundle", "run", "--config_file", inside / "configs" / "train.json")
    assert refused.returncode != 0
    assert f"{inside}: lies in the installed package, where nothing is written" in refused.stderr
    copied = installed.run("bundle", "copy", "fmirnet_chaos", "--output_dir", "bundles")
    assert copied.stdout.strip() == "bundles/fmirnet_chaos", copied.stderr
    copy = installed.work / "bundles" / "fmirnet_chaos"
    assert {str(Path(name).relative_to(copy)) for name in contents(copy)} == {
        str(Path(name).relative_to(inside)) for name in contents(inside)
    }
    again = installed.run("bundle", "copy", "fmirnet_chaos", "--output_dir", "bundles")
    assert again.returncode == 2 and "is there already" in again.stderr


def test_what_an_extra_brings_is_named(installed: Installed) -> None:
    answer = installed.run("phantom", "echonet", "--output_dir", "echo", "--subjects", "1")
    assert answer.returncode == 2 and "pip install 'fmirnet_monai[video]'" in answer.stderr
    assert not (installed.work / "echo").exists()
