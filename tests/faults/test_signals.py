"""Commands that are interrupted, asked to end or killed at work: nothing half-written stays, and then they go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from commands import BUNDLES, ENVIRONMENT, REPOSITORY, bundle_words
from faults import inputs
from faults.inputs import Task, digests, texture, write, write_list

pytestmark = pytest.mark.slow
SECONDS = 120  # that a command may take to begin, or to end
CODES = {signal.SIGTERM: {143}, signal.SIGINT: {130, -signal.SIGINT}, signal.SIGKILL: {-signal.SIGKILL}}


@dataclass(frozen=True)
class Work:
    """A command that takes some seconds, and how to see that it is at work.

    Attributes:
        words: of the command line.
        output: folder of its results.
        result: file that is there when it has succeeded.
        sign: on stderr once it is at work; empty where a folder of what isn't whole yet is the sign.
        environment: variables to set.
        finish: whether to see it succeed at last, for what takes long and isn't elsewhere.
    """

    words: Sequence[str]
    output: Path
    result: Path
    sign: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    finish: bool = True


def of(task: Task, sign: str = "", *more: str) -> Work:
    words = [word for pair in pairs_of(task.words) if pair[0] not in inputs.QUICK for word in pair]
    return Work([sys.executable, "-m", "fmirnet_monai", *words, *more], task.output, task.result, sign)


def pairs_of(words: Sequence[str]) -> list[list[str]]:
    """Options with their values, and the words before them."""
    first = next(place for place, word in enumerate(words) if word.startswith("--"))
    return [list(words[:first]), *(list(words[n : n + 2]) for n in range(first, len(words), 2))]


def prepare(folder: Path) -> Work:
    task = inputs.prepare(folder)
    for number in range(4, 80):
        for kind in ("image", "label"):
            (folder / "in" / f"{kind}_{number}.nii.gz").symlink_to(folder / "in" / f"{kind}_0.nii.gz")
    return of(task)


def batch(folder: Path) -> Work:
    """Two pairs at a time, each in a process of its own."""
    return replace(of(long_list(folder), ""), environment=(("OMP_NUM_THREADS", "2"),))


def long_list(folder: Path) -> Task:
    datalist, image = write_list(folder / "in", 4)
    words = ["register", "--datalist", str(datalist), "--output_dir", str(folder / "out"), "--bundle", "none"]
    return Task([*words, "--report", "false"], image, folder / "out", folder / "out" / "summary.csv")


def compare(folder: Path) -> Work:
    datalist, _ = write_list(folder / "in", 6)
    words = [
        "compare",
        "--datalist",
        str(datalist),
        "--output_dir",
        str(folder / "out"),
        "--methods",
        "demons",
    ]
    return of(Task(words, datalist, folder / "out", folder / "out" / "comparison.md"), "comparing")


def propagate(folder: Path) -> Work:
    task = inputs.propagate(folder)
    image = texture((48, 40, 9))
    label = inputs.blocks(image.shape)
    label[..., [n for n in range(9) if n % 4]] = 0
    for name, values in (("image", image), ("label", label)):
        write(folder / "in" / f"{name}.nii.gz", values)
    return of(task, "propagating", "--bundle", "none")


def export(folder: Path) -> Work:
    temporary = folder / "temporary"
    temporary.mkdir()
    return replace(of(inputs.export(folder)), environment=(("TMPDIR", str(temporary)),), finish=False)


def train(folder: Path) -> Work:
    return of_bundle(folder, "train", "training", "summary.md", max_epochs=30)


def infer(folder: Path) -> Work:
    return of_bundle(folder, "inference", "registering", "in/fixed_39_warped.nii.gz", pairs=40)


def of_bundle(folder: Path, config: str, sign: str, result: str, pairs: int = 4, **overrides: int) -> Work:
    datalist, _ = write_list(folder / "in", pairs)
    bundle, out = BUNDLES / "fmirnet_chaos", folder / "out"
    common = {"bundle_root": bundle, "dataset_dir": datalist.parent, "datalist": datalist, "output_dir": out}
    words = bundle_words(bundle / "configs" / f"{config}.json", **common, spatial_size="[32,32]", **overrides)
    return Work(words, out, out / result, sign)


WORKS: dict[str, Callable[[Path], Work]] = {
    "prepare": prepare,
    "register": lambda folder: of(inputs.register(folder)),
    "batch": batch,
    "cluster": lambda folder: replace(of(long_list(folder), "25%", "--workers", "2"), finish=False),
    "compare": compare,
    "propagate": propagate,
    "export": export,
    "train": train,
    "infer": infer,
}


def signals_of(name: str) -> list[signal.Signals]:
    """Those that a work gets, one where its start takes long."""
    return [signal.SIGTERM] if name == "export" else [*CODES]


class Running:
    """A command in a process and a session of its own."""

    def __init__(self, work: Work, log: Path) -> None:
        self.work, self.log = work, log
        with log.open("w") as file:
            streams = {"stdout": subprocess.DEVNULL, "stderr": file}
            environment = {**ENVIRONMENT, **dict(work.environment)}
            self.process = subprocess.Popen(
                list(work.words), cwd=REPOSITORY, env=environment, start_new_session=True, **streams
            )

    def said(self) -> str:
        return self.log.read_text().replace("\r", "\n")

    def children(self) -> list[int]:
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(number) for number in task.read_text().split()]

    def wait_until(self, true: Callable[[], object]) -> None:
        def alive_and_true() -> object:
            assert self.process.poll() is None, f"ended too soon: {self.said()[-2000:]}"
            return true()

        wait_for(alive_and_true)

    def at_work(self) -> bool:
        if self.work.sign:
            return self.work.sign in self.said()
        places = [self.work.output, *(Path(v) for name, v in self.work.environment if name == "TMPDIR")]
        return any(partial_files(place) or (place.name == "temporary" and any(place.iterdir())) for place in places)


def partial_files(folder: Path) -> list[Path]:
    return list(folder.rglob(".*_partial_*"))


def wait_for(true: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("name", WORKS)
def test_a_signal(name: str, tmp_path: Path) -> None:
    """One after the other on the same output: each run begins where the one before was stopped."""
    work = WORKS[name](tmp_path)
    work.output.mkdir()
    (work.output / "earlier.txt").write_text("of the user")
    for number in signals_of(name):
        running = Running(work, tmp_path / "log.txt")
        running.wait_until(running.at_work)
        workers = running.children()
        if number == signal.SIGINT:  # as a terminal's
            os.killpg(running.process.pid, number)
        else:
            running.process.send_signal(number)
        assert running.process.wait(SECONDS) in CODES[number], running.said()[-2000:]
        if number != signal.SIGKILL:
            lines = running.said().strip().splitlines()
            assert lines[-1].startswith("fmirnet: error: interrupted; "), lines[-5:]
            assert "Traceback" not in running.said() and sum("error:" in line for line in lines) == 1
            assert not partial_files(work.output)
        assert not work.result.exists()
        wait_for(lambda gone=workers: not any(Path(f"/proc/{number}").exists() for number in gone))
    if not work.finish:
        return
    done = Running(work, tmp_path / "log.txt")
    assert done.process.wait(SECONDS) == 0, done.said()[-2000:]
    assert work.result.is_file() and not partial_files(tmp_path)
    assert digests(work.output)["earlier.txt"] == digests(tmp_path / "out")["earlier.txt"]


def test_a_worker_that_dies(tmp_path: Path) -> None:
    work = batch(tmp_path)
    running = Running(work, tmp_path / "log.txt")
    running.wait_until(running.at_work)
    workers = [n for n in running.children() if "spawn_main" in Path(f"/proc/{n}/cmdline").read_text()]
    os.kill(workers[0], signal.SIGKILL)
    assert running.process.wait(SECONDS) == 2
    line = running.said().strip().splitlines()[-1]
    assert line.startswith("fmirnet: error: registering: one of 2 processes was killed")
    assert "start the command again" in line and "Traceback" not in running.said()
    done = Running(work, tmp_path / "log.txt")
    assert done.process.wait(SECONDS) == 0, done.said()[-2000:]
    assert work.result.is_file() and not partial_files(tmp_path)


def test_a_run_that_is_alive_keeps_its_folder(tmp_path: Path) -> None:
    """Another run, of the same or of another command, takes none but dead runs' folders away."""
    work = batch(tmp_path)
    running = Running(work, tmp_path / "log.txt")
    running.wait_until(running.at_work)
    dead = tmp_path / "out" / ".other_partial_0123456789ab"
    dead.mkdir()
    task = inputs.register(tmp_path / "second")
    words = [word if before != "--output_dir" else str(tmp_path / "out" / "second")
             for before, word in zip(["", *task.words], task.words, strict=False)]  # fmt: skip
    other = subprocess.run([sys.executable, "-m", "fmirnet_monai", *words], cwd=REPOSITORY, check=False)
    assert other.returncode == 0 and not dead.exists()
    assert running.process.wait(SECONDS) == 0, running.said()[-2000:]
    table = json.loads((tmp_path / "out" / "second" / "metrics.json").read_text())
    assert table["files"] and work.result.is_file() and not partial_files(tmp_path)


def test_work_goes_on_where_nobody_reads_its_progress(tmp_path: Path) -> None:
    """A bar that can't be drawn once kept tqdm's lock, which every thread then waited for."""
    work = of(long_list(tmp_path), "", "--metrics", "false")
    gone, end = os.pipe()
    os.close(gone)
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": "2"}
    with open(end, "wb") as stderr:
        done = subprocess.run(work.words, cwd=REPOSITORY, env=environment, stderr=stderr, timeout=SECONDS, check=False)
    assert done.returncode == 0 and work.result.is_file()
