"""``kill -9`` at any moment: what was killed and started again ends as what was left alone, and nothing lives on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import monai
import pytest
from commands import BUNDLES, ENVIRONMENT, REPOSITORY, run
from monai.bundle import ConfigParser

SMALL: dict[str, Any] = {"spatial_size": [48, 48], "network_def#channels": [4, 8], "max_epochs": 2}
SHARED_OUT = """
import os, sys, time, torch
from fmirnet_monai.parallel import at_a_time

def work(item):
    os.write(1, b"%d\\n" % os.getpid())  # whole, beside another process's
    time.sleep(0.05)

if __name__ == "__main__":
    torch.set_num_threads(2)
    at_a_time(work, range(10_000), torch.device("cpu"), "waiting", "item", show=False, processes=True)
"""


def trained(sample: Path, folder: Path) -> Path:
    """Train a bundle in this process, without evaluation."""
    parser = ConfigParser()
    parser.read_config(BUNDLES / "fmirnet_chaos" / "configs" / "train.json")
    parser.update({"bundle_root": str(BUNDLES / "fmirnet_chaos"), "dataset_dir": str(sample), **SMALL})
    parser["output_dir"] = str(folder)
    try:
        parser.get_parsed_content("initialize")
        parser.get_parsed_content("train#trainer").run()
    finally:
        monai.utils.set_determinism(None)
    return folder


def alive(process: int) -> bool:
    """Whether it is there and no mere entry that nobody has asked for yet."""
    state = run(["ps", "-o", "stat=", "-p", str(process)]).stdout.strip()
    return state != "" and not state.startswith("Z")


def figures(*words: str, **environment: str) -> dict[str, str]:
    """The row of ``benchmarks/kills.py`` by column."""
    done = subprocess.run(
        [sys.executable, "benchmarks/kills.py", *words],
        cwd=REPOSITORY,
        env={**ENVIRONMENT, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1) and "| what |" in done.stdout, done.stderr
    head, _, row = done.stdout[done.stdout.index("| what |") :].splitlines()
    return dict(zip(*([cell.strip() for cell in line.strip("|").split("|")] for line in (head, row)), strict=True))


def test_the_same_seed_trains_the_same_bits(small_sample: Path, tmp_path: Path) -> None:
    one, other = (trained(small_sample, tmp_path / name) for name in ("one", "other"))
    for name in ("model.pt", "last.pt", "run.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_processes_that_share_out_items_end_with_the_killed_one_that_began_them(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SHARED_OUT)
    environment = {**ENVIRONMENT, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        begun: set[int] = set()
        while len(begun) < 2:
            begun.add(int(parent.stdout.readline()))
        assert all(map(alive, begun))
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 10
        while any(map(alive, begun)) and time.monotonic() < deadline:
            time.sleep(0.05)
        left = [process for process in begun if alive(process)]
        for process in left:
            os.kill(process, signal.SIGKILL)
    assert not left


@pytest.mark.slow
def test_training_that_is_killed_ends_as_one_left_alone(small_sample: Path, tmp_path: Path) -> None:
    words = ["--what", "train", "--amp", "--kills", "3", "--epochs", "5", "--dataset_dir", str(small_sample)]
    found = figures(*words, "--work_dir", str(tmp_path))
    assert found["differing"] == "0" and found["processes that outlived one"] == found["left-over files"] == "0"
    assert found["kills"].startswith("3 (1 at a random time, 1 while it wrote, 1 after last.pt was written)")


@pytest.mark.slow
def test_a_batch_that_is_killed_ends_as_one_left_alone(tmp_path: Path) -> None:
    words = ["--what", "batch", "--pairs", "12", "--kills", "2", "--work_dir", str(tmp_path)]
    found = figures(*words, OMP_NUM_THREADS="2")
    assert found["differing"] == "0" and found["processes that outlived one"] == found["left-over files"] == "0"
    assert found["kills"].startswith("2 ")
