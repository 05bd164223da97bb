"""Bundle commands x every fault of a file, and what they print: nothing but what is about the user's work."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import monai.bundle
import pytest
from commands import BUNDLES, bundle_run
from faults.circumstances import forbidden, full_disk
from faults.inputs import OF_FILES, OF_IMAGES, Task, digests, fault, write_list

from fmirnet_monai import program

BUNDLE = BUNDLES / "fmirnet_chaos"
LEGITIMATE = {  # not refused, and why
    "constant": "a slice of nothing but air is one of a volume's",
    "no overlap": "a bundle's pairs lie on one grid, as prepare writes them; register looks at the place",
}
CIRCUMSTANCES: dict[str, Callable[[Task], AbstractContextManager[None]]] = {
    "no right to read": lambda task: forbidden(task.victim, 0o000),
    "no right to write": lambda task: forbidden(task.output, 0o555),
    "full disk": lambda task: full_disk(),
}
VICTIMS: dict[str, dict[str, Callable[[Path], object]]] = {"image": OF_IMAGES, "datalist": OF_FILES}
CELLS = [
    (config, victim, name)
    for config in ("train", "inference")
    for victim, faults in VICTIMS.items()
    for name in faults
    if name not in LEGITIMATE
]


def task_of(folder: Path, victim: str) -> Task:
    datalist, image = write_list(folder / "in")
    out = folder / "out"
    return Task([], image if victim == "image" else datalist, out, out, ("in/*",), {"datalist": datalist})


def overrides(task: Task, config: str) -> dict[str, Any]:
    common = {"bundle_root": str(BUNDLE), "dataset_dir": str(task.victim.parent), "output_dir": str(task.output)}
    length = {"max_epochs": 1} if config == "train" else {}
    return {**common, "datalist": str(task.given["datalist"]), "spatial_size": [32, 32], "device": "cpu", **length}


@pytest.mark.parametrize(("config", "victim", "name"), CELLS, ids=["-".join(cell) for cell in CELLS])
def test_a_file_at_fault(config: str, victim: str, name: str, tmp_path: Path) -> None:
    task = task_of(tmp_path, victim)
    task.output.mkdir()
    (task.output / "earlier.txt").write_text("of the user")
    with fault(task, VICTIMS[victim][name]), pytest.raises(Exception) as caught:
        monai.bundle.run(
            config_file=str(BUNDLE / "configs" / f"{config}.json"), logging_file=False, **overrides(task, config)
        )
    line = program.told(caught.value)
    assert str(task.victim) in line and "\n" not in line
    left = {file for file, kind in digests(task.output).items() if kind != "folder"} - {"earlier.txt"}
    assert not [file for file in left if not re.match(r"in/(moving|fixed)_0_|events\.", file)]


@pytest.mark.parametrize("circumstance", CIRCUMSTANCES)
@pytest.mark.parametrize("config", ["train", "inference"])
def test_a_circumstance(
    config: str, circumstance: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # what is shown goes to no file, which would be full, too
    task = task_of(tmp_path, "image")
    task.output.mkdir()
    with CIRCUMSTANCES[circumstance](task), pytest.raises(BaseException) as caught:
        monai.bundle.run(
            config_file=str(BUNDLE / "configs" / f"{config}.json"), logging_file=False, **overrides(task, config)
        )
    line = program.told(caught.value)
    if (config, circumstance) != ("train", "full disk"):  # TensorBoard's error, which names no file
        assert str(task.victim if circumstance == "no right to read" else task.output) in line
    assert re.search("rights", line) and "_partial_" not in line


@pytest.mark.slow
@pytest.mark.parametrize("config", ["train", "inference"])
def test_the_program_says_it_in_one_line_and_goes_on(config: str, tmp_path: Path) -> None:
    task = task_of(tmp_path, "image")
    with fault(task, OF_IMAGES["NaN"]):
        failed = bundle_run(BUNDLE / "configs" / f"{config}.json", **overrides(task, config))
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    line = failed.stderr.strip().splitlines()[-1]
    assert line.startswith(f"fmirnet: error: {task.victim}: 1 of 896 intensities are NaN")
    done = bundle_run(BUNDLE / "configs" / f"{config}.json", **overrides(task, config))
    assert done.returncode == 0, done.stderr
    said = [line for line in re.split(r"[\r\n]+", done.stderr) if line.strip() and not re.search(r"\d+/\d+", line)]
    assert len(said) == 1 and said[0].startswith("parsing config_file"), said  # MONAI's, before all of ours
    assert not re.search("WARNING|nvImageCodec|[Dd]eprecat", done.stdout)


def error_in_a_worker() -> RuntimeError:
    """As torch gives the error of another process: its text alone."""
    frame = f'  File "{program.ROOT / "transforms" / "dictionary.py"}", line 1, in __call__\n    raise ValueError(\n'
    around = '  File "/lib/monai/transforms/transform.py", line 1, in apply\n'
    return RuntimeError(
        "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        f"{around}{frame}ValueError: a.nii.gz: holds NaN; replace them.\n\nThe above exception was the direct cause of "
        f"the following exception:\n\nTraceback (most recent call last):\n{around}RuntimeError: applying transform X\n"
    )


def test_what_is_told_of_a_chain_of_errors() -> None:
    assert program.told(error_in_a_worker()) == "a.nii.gz: holds NaN; replace them."
    assert program.told(KeyError("a bug")) == "" and program.told(RuntimeError("a bug")) == ""
    error = RuntimeError("applying transform X")
    error.__cause__ = FileNotFoundError(2, "No such file or directory", "weights.pt")
    assert program.told(error) == "weights.pt: no such file or directory; check the path."
