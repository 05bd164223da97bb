"""Packages that are absent: one line that names them and how to get them, whatever the command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import ENVIRONMENT, REPOSITORY
from faults import inputs
from faults.inputs import digests, write_list

from fmirnet_monai.errors import explain

BLOCKER = """
import os, sys
ABSENT = set(os.environ["ABSENT"].split(","))
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def compare_by(method: str) -> Callable[[Path], list[str]]:
    def words(folder: Path) -> list[str]:
        datalist, _ = write_list(folder / "in")
        return ["compare", "--datalist", str(datalist), "--output_dir", str(folder / "out"), "--methods", method]

    return words


COMMANDS: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "ants": (compare_by("syn"), "syn needs ANTs: pip install 'fmirnet_monai[ants]'."),
    "picsl_greedy": (compare_by("greedy"), "greedy needs greedy: pip install 'fmirnet_monai[greedy]'."),
    "matplotlib": (compare_by("identity"), "matplotlib is not installed; get it by: pip install 'matplotlib'."),
    "av": (
        lambda folder: ["phantom", "echonet", "--subjects", "1", "--output_dir", str(folder / "out")],
        "av is not installed; get it by: pip install 'fmirnet_monai[video]'.",
    ),
    "h5py": (lambda folder: inputs.register(folder).words, "h5py is not installed; get it by: pip install 'h5py'."),
    "onnxscript": (lambda folder: inputs.export(folder).words, "pip install 'fmirnet_monai[onnx]'"),
}


@pytest.mark.slow
@pytest.mark.parametrize("absent", COMMANDS)
def test_an_absent_package(absent: str, tmp_path: Path) -> None:
    (tmp_path / "blocker").mkdir()
    (tmp_path / "blocker" / "sitecustomize.py").write_text(BLOCKER)
    build, told = COMMANDS[absent]
    path = f"{tmp_path / 'blocker'}:{REPOSITORY}"
    done = subprocess.run(
        [sys.executable, "-m", "fmirnet_monai", *build(tmp_path)], cwd=REPOSITORY, check=False, capture_output=True,
        text=True, env={**ENVIRONMENT, "ABSENT": absent, "PYTHONPATH": path},
    )  # fmt: skip
    lines = done.stderr.replace("\r", "\n").strip().splitlines()
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert lines[-1].startswith("fmirnet: error: ") and told in lines[-1]
    assert not [name for name, kind in digests(tmp_path / "out").items() if kind != "folder" and "cases/" not in name]


def test_what_is_told_of_an_absent_package() -> None:
    absent = ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
    assert explain(absent) == "onnxruntime is not installed; get it by: pip install 'fmirnet_monai[onnx]'."
    absent = ModuleNotFoundError("No module named 'highdicom'", name="highdicom")
    assert explain(absent) == "highdicom is not installed; get it by: pip install 'fmirnet_monai[dicom]'."
    assert "pip install 'pillow'" in explain(ModuleNotFoundError("No module named 'PIL'", name="PIL.Image"))
    broken = ImportError("libGL.so.1: cannot open shared object file", name="cv2")
    assert explain(broken).startswith("cv2 can't be loaded (libGL.so.1: cannot open")
    assert explain(ImportError("cannot import name 'x' from 'fmirnet_monai.y'", name="fmirnet_monai.y")) == ""


def test_short_memory_and_full_disks_are_told_and_bugs_are_not() -> None:
    assert "memory is short" in explain(MemoryError()) and "memory is short" in explain(
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried …")
    )
    assert "rights and space" in explain(
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
    )
    assert explain(PermissionError(13, "Permission denied", "a.csv")) == "a.csv: permission denied; check its rights."
    assert explain(RuntimeError("a bug")) == "" and explain(KeyError("a bug")) == ""
