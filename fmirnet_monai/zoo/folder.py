"""A bundle as a pull request to MONAI's model zoo: its files, a unit test, a text, and what the zoo's checks say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from fmirnet_monai.bundle import bundles_dir, find_bundle
from fmirnet_monai.bundle_config import TRUST
from fmirnet_monai.export import SCRIPTS, copy_self_contained
from fmirnet_monai.output import new_files
from fmirnet_monai.terms import weights_license
from fmirnet_monai.utils import digest, package_version, read_object, versions

HERE = Path(__file__).parent
SCHEMA = HERE / "meta_schema_20240725.json"  # the rules of MONAI's own
LIMIT = 25 * 2**20  # bytes; the zoo takes larger files by address only
ADDRESS = "FILL IN: the address that the file was uploaded to"
SHORT = {"max_epochs": 1, "pairs_per_epoch": 8, "num_workers": 0}  # of a unit test's run, where a config has them


def write_zoo_folder(
    bundle: str | Path, output_dir: str | Path, trusted: bool = False, unit_tests: bool = True
) -> Path:
    """Write what goes into the zoo's repository, after the zoo's checks passed without this package.

    Args:
        bundle: its name or folder.
        output_dir: folder that gets a folder of the bundle's name, whole or not at all: ``models/NAME`` and
            ``ci/unit_tests/test_NAME.py`` as they go into the repository, ``PULL_REQUEST.md`` and ``CHECKS.md`` for
            whoever opens it, and ``large_files`` where there are files that the zoo takes by address only.
        trusted: a bundle that is none of the package's may run what its configs say, which the zoo's checks do.
        unit_tests: run the unit test too, which trains.

    Returns:
        path of that folder.

    Raises:
        FileNotFoundError: when there is no such bundle.
        FileExistsError: when the folder is there already.
        ValueError: when jsonschema is missing, the bundle is not trusted, or a check fails.
    """
    source = find_bundle(bundle).resolve()
    name, target = source.name, Path(output_dir) / source.name
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target}: is there already; remove it or name another output_dir.")
    if package_version("jsonschema") == "not installed":
        raise ValueError("jsonschema is not installed; the zoo's checks need: pip install 'fmirnet_monai[zoo]'.")
    if not trusted and bundles_dir().resolve() not in source.parents:
        raise ValueError(f"{source}: the zoo's checks run what its configs say; {TRUST}.")
    with new_files(target) as partial:
        folder = copy_self_contained(source, partial / "models")
        metadata = read_object(folder / "configs" / "metadata.json")
        test = partial / "ci" / "unit_tests" / f"test_{name}.py"
        test.parent.mkdir(parents=True)
        test.write_text(_unit_test(folder))
        found = run_checks(partial, name, unit_tests)
        large = _move_large_files(folder, partial / "large_files")
        (partial / "CHECKS.md").write_text(_checks_page(name, metadata, found, digest(source / "models" / "model.pt")))
        (partial / "PULL_REQUEST.md").write_text(_request(name, metadata, folder, large, unit_tests))
    return target


def run_checks(root: str | Path, name: str, unit_tests: bool = True) -> dict[str, str]:
    """The zoo's checks of ``models/NAME`` below ``root``, in a process that can't import this package.

    Returns:
        what was found, by what was checked.

    Raises:
        ValueError: with the reason, when one fails.
    """
    with tempfile.TemporaryDirectory() as temporary:
        result = Path(temporary) / "result.json"
        words = [sys.executable, "-P", str(HERE / "checks.py"), name, str(SCHEMA), str(result)]
        words += [] if unit_tests else ["--no-unit-tests"]
        done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
        for made in sorted(Path(root).rglob("__pycache__")):
            shutil.rmtree(made)
        if done.returncode or not result.is_file():
            lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
            raise ValueError(f"{name}: fails the model zoo's checks: {lines[-1].rstrip('.')}.")
        return read_object(result)


def _unit_test(folder: Path) -> str:
    """A test in the form of the zoo's: it trains, evaluates and infers on a sample that the bundle makes."""
    train = read_object(folder / "configs" / "train.json")
    sample = str(train.get("sample", "")).replace("@bundle_root + '/sample'", "@dataset_dir")
    short = {key: value for key, value in SHORT.items() if key in train}
    title = "".join(part.capitalize() for part in folder.name.split("_"))
    values = {"name": folder.name, "title": title, "sample": json.dumps(sample), "short": json.dumps(short)}
    return Template((HERE / "unit_test.py.txt").read_text()).substitute(values)


def _move_large_files(folder: Path, aside: Path) -> list[str]:
    """Put aside what is too large for the zoo, and list it in ``large_files.json``, without its address."""
    listed = []
    for file in [file for file in sorted(folder.rglob("*")) if file.is_file() and file.stat().st_size > LIMIT]:
        name = file.relative_to(folder).as_posix()
        listed.append({"path": name, "url": ADDRESS, "hash_val": digest(file), "hash_type": "sha256"})
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, aside / name)
    if listed:
        (folder / "large_files.json").write_text(json.dumps({"large_files": listed}, indent=4) + "\n")
    return [item["path"] for item in listed]


def _checks_page(name: str, metadata: Mapping[str, Any], found: Mapping[str, str], weights: str) -> str:
    rows = "\n".join(f"| {what} | {text} |" for what, text in found.items())
    made_by = ", ".join(f"{package} {version}" for package, version in versions().items())
    return f"""\
# Checks of {name} {metadata["version"]}

Passed in a process that could not import `fmirnet_monai`, from a folder laid out as the zoo's repository.

| check | found |
|---|---|
{rows}

- Weights: sha256 `{weights}`.
- Versions: {made_by}.
- The rules for the metadata are a copy of MONAI's; the zoo fetches the schema that the metadata names.
"""


def _request(name: str, metadata: Mapping[str, Any], folder: Path, large: list[str], tested: bool) -> str:
    """The text of the pull request, and what whoever opens it has still to do."""
    count = len(list((folder / SCRIPTS).rglob("*.py")))
    terms = "docs/data_license.txt" if (folder / "docs" / "data_license.txt").is_file() else "LICENSE"
    values = {
        "name": name,
        "version": metadata["version"],
        "title": metadata.get("name", name),
        "description": metadata["description"],
        "use": metadata.get("intended_use", "not stated"),
        "figures": ", ".join(f"{key} {value}" for key, value in metadata.get("eval_metrics", {}).items())
        or "not in the metadata",
        "packages": ", ".join(f"{key} {value}" for key, value in metadata["required_packages_version"].items()),
        "count": count,
        "terms": terms,
        "license": weights_license(folder) or "not named in the metadata",
        "ran": "ran" if tested else "was not run",
        "large": f"Upload {', '.join(large)} from `large_files`, and put the addresses into `large_files.json`: until "
        "then the zoo's checks fail."
        if large
        else "Nothing to upload: no file is larger than 25 MB, so that there is no `large_files.json`.",
    }
    return Template((HERE / "pull_request.md").read_text()).substitute(values)
