"""Every command x every fault of a file: one line that names it, exit code 2, nothing written, and then it goes on."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from fnmatch import fnmatch
from pathlib import Path

import pytest
from faults import inputs
from faults.circumstances import forbidden, full_disk
from faults.inputs import OF_FIELDS, OF_FILES, OF_IMAGES, Task, digests, fault

from fmirnet_monai import cli

ENTRIES: dict[str, tuple[Callable[[Path], Task], dict[str, Callable[[Path], object]]]] = {
    "prepare folder": (inputs.prepare, OF_IMAGES),
    "prepare pairs": (inputs.prepare_pairs, OF_IMAGES),
    "register": (inputs.register, OF_IMAGES),
    "register, label": (inputs.register_label, OF_IMAGES),
    "register, points": (inputs.register_points, OF_FILES),
    "batch": (inputs.batch, OF_IMAGES),
    "batch, datalist": (inputs.batch_list, OF_FILES),
    "compare": (inputs.compare, OF_IMAGES),
    "compare, datalist": (inputs.compare_list, OF_FILES),
    "propagate": (inputs.propagate, OF_IMAGES),
    "propagate, label": (inputs.propagate_label, OF_IMAGES),
    "warp, field": (inputs.warp, OF_FIELDS),
    "export": (inputs.export, OF_FILES),
}
NO_MEANING = {
    ("prepare folder", "missing"): "a folder is taken as it is; the files that a table names are in prepare pairs",
    ("register, label", "constant"): "a label may fill the whole image",
}
CIRCUMSTANCES: dict[str, Callable[[Task], AbstractContextManager[None]]] = {
    "no right to read": lambda task: forbidden(task.victim, 0o000),
    "no right to write": lambda task: forbidden(task.output, 0o555),
    "full disk": lambda task: full_disk(),
}
CELLS = [(entry, name) for entry, (_, faults) in ENTRIES.items() for name in faults if (entry, name) not in NO_MEANING]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Run a command that must fail; its last line and all that it says."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    out, err = capsys.readouterr()
    lines = err.replace("\r", "\n").strip().splitlines()
    assert stop.value.code == 2 and "Traceback" not in err
    assert lines[-1].startswith("fmirnet: error: "), err
    assert sum("error:" in line for line in lines) == 1, err
    return lines[-1], out + err


def succeed(task: Task) -> None:
    task.output.mkdir(exist_ok=True)
    (task.output / "earlier.txt").write_text("of the user")
    cli.main([*task.words, *task.goes_on])
    assert task.result.is_file() and (task.output / "earlier.txt").is_file()
    assert not list(task.output.rglob(".*"))


@pytest.mark.parametrize(("entry", "name"), CELLS, ids=["-".join(cell) for cell in CELLS])
def test_a_file_at_fault(entry: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build, faults = ENTRIES[entry]
    task = build(tmp_path)
    task.output.mkdir()
    (task.output / "earlier.txt").write_text("of the user")
    before = digests(task.output)
    with fault(task, faults[name]):
        line, said = refused(task.words, capsys)
        print(line)
        assert task.victim.name in (said if task.allowed else line)
    after = digests(task.output)
    assert {name: after.get(name) for name in before} == before
    new = [name for name in after if (name not in before and after[name] != "folder") or name.split("/")[-1][0] == "."]
    assert not [name for name in new if not any(fnmatch(name, pattern) for pattern in task.allowed)]
    if task.allowed:
        succeed(task)
    else:  # as if it had never been started, so it goes as below
        assert after == before


@pytest.mark.parametrize("circumstance", CIRCUMSTANCES)
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_circumstance(
    entry: str, circumstance: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # where MONAI logs to the stdout of an earlier test
    task = ENTRIES[entry][0](tmp_path)
    task.output.mkdir()
    (task.output / "earlier.txt").write_text("of the user")
    before = digests(task.output)
    with CIRCUMSTANCES[circumstance](task):
        line, _ = refused(task.words, capsys)
    if circumstance == "no right to read":
        assert task.victim.name in line and re.search("permission|rights", line.lower())
    else:
        assert str(task.output) in line or entry == "export"  # which works in a temporary folder first
        assert "_partial_" not in line and re.search("check .*rights and space", line)
    new = [name for name, kind in digests(task.output).items() if name not in before and kind != "folder"]
    assert not [name for name in new if not any(fnmatch(name, pattern) for pattern in (*task.allowed, *task.kept))]
    if new:
        succeed(task)


@pytest.mark.parametrize("entry", [pytest.param(e, marks=[pytest.mark.slow] * (e == "export")) for e in ENTRIES])
def test_without_a_fault(entry: str, tmp_path: Path) -> None:
    succeed(ENTRIES[entry][0](tmp_path))
