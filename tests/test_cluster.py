"""Many cases on a real Dask cluster: a scheduler and two workers, one of which is killed while it works."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from commands import ENVIRONMENT, REPOSITORY
from distributed import Client
from faults.inputs import QUICK, digests, texture, write, write_list

from fmirnet_monai import cluster, workers
from fmirnet_monai.cli import main
from fmirnet_monai.parallel import at_a_time
from fmirnet_monai.workers import Workers

CPU = torch.device("cpu")
SECONDS = 120
PAIRS = 6
REGISTER = ["register", *QUICK[:-2], "--bundle", "none", "--affine", "off"]


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a scheduler with two workers of one thread, each a process as ``dask`` starts them."""
    folder = tmp_path_factory.mktemp("dask")
    told = folder / "scheduler.json"
    place = ["--scheduler-file", str(told)]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(REPOSITORY)}
    kinds = (
        ["scheduler", *place, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"],
        ["worker", *place, "--nworkers", "2", "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder)],
    )
    begun = []
    with (folder / "log").open("w") as log:
        for words in kinds:
            command = [sys.executable, "-m", "dask", *words]
            begun.append(subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log))
        try:
            wait_for(lambda: told.exists() and told.read_text().rstrip().endswith("}"))
            address = json.loads(told.read_text())["address"]
            with Client(address, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=SECONDS)
            yield address
        finally:
            for process in begun[::-1]:
                process.terminate()
            for process in begun:
                process.wait(SECONDS)


def wait_for(true: Any) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def results(folder: Path) -> dict[str, str]:
    """What lies in the folder, without ``metrics.json`` and the summary, which tell the seconds."""
    return {name: kind for name, kind in digests(folder).items() if not name.endswith(("metrics.json", "summary.csv"))}


def told(folder: Path) -> dict[str, Any]:
    """What ``metrics.json`` of each pair tells, without the seconds."""
    return {
        file.parent.name: {key: value for key, value in json.loads(file.read_text()).items() if key != "seconds"}
        for file in folder.glob("[0-9]*/metrics.json")
    }


def times(folder: Path) -> dict[str, int]:
    return {file.parent.name: file.stat().st_mtime_ns for file in folder.glob("[0-9]*/metrics.json")}


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def kill_one(address: str, folder: Path, killed: dict[str, int]) -> None:
    """Kill a worker once some pairs are done and others aren't; note when those were written."""
    with Client(address, set_as_default=False) as client:
        workers = client.run(os.getpid)
        wait_for(lambda: times(folder) and len(list(folder.glob(".*_partial_*"))) > 1)
        os.kill(next(iter(workers.values())), signal.SIGKILL)
        killed.update(times(folder))


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_what_is_done_is_not_done_again(
    scheduler: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    datalist, last = write_list(tmp_path / "in", PAIRS)
    content = json.loads(datalist.read_text())
    for n in range(PAIRS):  # large enough to be killed at
        for side in ("moving", "fixed"):
            write(tmp_path / "in" / f"{side}_{n}.nii.gz", np.roll(texture((96, 96), n), side == "fixed", 0))
    content["test"].append({"moving": "absent.nii.gz", "fixed": content["test"][0]["fixed"]})
    datalist.write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    words = [*REGISTER, "--datalist", "in/datalist.json", "--output_dir"]
    assert f"1 of {PAIRS + 1} pairs failed" in fails([*words, "plain"], capsys)

    shared, before = [*words, "shared", "--scheduler", scheduler], dict[str, int]()
    killer = threading.Thread(target=kill_one, args=(scheduler, tmp_path / "shared", before))
    killer.start()
    said = fails(shared, capsys)
    killer.join()
    assert "note: a worker died" in said and f"1 of {PAIRS + 1} pairs failed" in said and "absent.nii.gz" in said
    assert 0 < len(before) < PAIRS and before.items() <= times(tmp_path / "shared").items()
    assert results(tmp_path / "shared") == results(tmp_path / "plain")
    assert told(tmp_path / "shared") == told(tmp_path / "plain") and len(told(tmp_path / "plain")) == PAIRS

    before = times(tmp_path / "shared")
    assert f"{PAIRS} of {PAIRS + 1} are there already" in fails(shared, capsys)
    assert times(tmp_path / "shared") == before
    write(last, texture((96, 96), 99))
    (tmp_path / "shared" / "0000_moving_0_to_fixed_0" / "warped.nii.gz").unlink()
    assert f"{PAIRS - 2} of {PAIRS + 1} are there already" in fails(shared, capsys)
    again = {name for name, time in times(tmp_path / "shared").items() if time != before[name]}
    assert again == {"0000_moving_0_to_fixed_0", f"000{PAIRS - 1}_moving_{PAIRS - 1}_to_fixed_{PAIRS - 1}"}


@pytest.mark.slow
def test_prepare_and_compare_give_the_same_on_a_cluster(
    scheduler: str, tmp_path: Path, raw_phantom: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compared = []
    for name, more in (("plain", []), ("shared", ["--scheduler", scheduler])):
        data, out = tmp_path / name / "data", tmp_path / name / "out"
        main(["prepare", "chaos", "--source_dir", str(raw_phantom), "--output_dir", str(data), "--r", "0.2", *more])
        main(["compare", "--datalist", str(data / "datalist.json"), "--output_dir", str(out), "--methods",
              "identity,optimise", "--count", "3", "--pictures", "0", *more])  # fmt: skip
        compared.append(pd.read_csv(out / "comparison.csv").drop(columns="seconds"))
        text = (out / "comparison.md").read_text()
        assert ("on a cluster" in text) == (name == "shared")
    assert digests(tmp_path / "plain" / "data") == digests(tmp_path / "shared" / "data")
    pd.testing.assert_frame_equal(*compared, check_exact=True)
    assert not list(tmp_path.rglob(".*_partial_*"))


def own_environment(item: int) -> tuple[int, int, list[str | None]]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
    return os.getpid(), torch.get_num_threads(), [os.environ.get(name) for name in names]


def end_at_three(item: int) -> Any:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return own_environment(item)


@pytest.mark.slow
def test_local_workers_share_the_threads_and_one_item_that_kills_them_is_given_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, threads = dict(os.environ), torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        found = at_a_time(
            end_at_three, range(5), CPU, "asking", "item", workers=Workers(2), folder=tmp_path,
            lost=lambda item, why: f"{item}: {why}",
        )  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    assert found.pop(3).startswith("3: 3 workers died at it one after the other")
    assert os.getpid() not in {process for process, *_ in found}
    assert all((each, environment) == (2, ["2"] * 3) for _, each, environment in found)
    said = capsys.readouterr().err
    assert len(re.findall(r"note: dashboard: http://127\.0\.0\.1:\d+/status", said)) == 1 and "asking: 100%" in said
    assert dict(os.environ) == before and not list(tmp_path.iterdir())


@pytest.mark.parametrize("workers", [0, 1, 2, 7])
@pytest.mark.parametrize("items", [1, 31, 32, 100, 10_000])
def test_tasks_hold_every_item_once_and_each_worker_gets_many(items: int, workers: int) -> None:
    parts = cluster.chunks(items, workers)
    assert [number for part in parts for number in part] == list(range(items))
    assert max(map(len, parts)) <= cluster.CHUNK
    assert len(parts) >= min(items, cluster.SHARES * max(1, workers))


def a_run(folder: Path, **changes: Any) -> cluster._Run:
    return cluster._Run(**{"folder": str(folder), "topic": "", "work": b"", "threads": 1, **changes})


def test_a_worker_that_can_not_do_it_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.0)
    (tmp_path / "run").mkdir()
    cluster._require(a_run(tmp_path / "run"), "tcp://here:1")
    with pytest.raises(OSError, match=rf"{tmp_path}/gone: can't be seen by the worker tcp://here:1; .*same path"):
        cluster._require(a_run(tmp_path / "gone" / "run"), "tcp://here:1")
    with pytest.raises(ImportError, match=r"has fmirnet_monai .*, this command 0\.0; pip install the same"):
        cluster._require(a_run(tmp_path / "run", version="0.0"), "tcp://here:1")


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (ModuleNotFoundError("No module named 'fmirnet_monai.cluster'", name="fmirnet_monai.cluster"), True),
        (RuntimeError("Error during deserialization of the task graph."), True),
        (ModuleNotFoundError("No module named 'ants'", name="ants"), False),
        (ValueError("of a case"), False),
    ],
)
def test_another_environment_is_told_from_other_errors(error: Exception, lacks: bool) -> None:
    assert cluster._lacks_package(error) == lacks


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "2", "--scheduler", "tcp://a:1"], "give either --workers 2, .* or --scheduler tcp://a:1"),
        (["--workers", "0"], "workers must be at least 1, got 0"),
        (["--workers", "two"], "--workers: expected a whole number, got 'two'"),
        (["--scheduler", "localhost"], "scheduler: nothing answers at localhost; check the address"),
        (["--scheduler", "http://127.0.0.1:9"], "scheduler: nothing answers at http://127.0.0.1:9; check the address"),
        (["--scheduler", "tcp://127.0.0.1:9"], "scheduler: nothing answers at tcp://127.0.0.1:9; check the address"),
        (["--skip_existing"], "--skip_existing: is what --datalist does by now: .* --overwrite true"),
    ],
)
def test_what_can_not_be_is_told_in_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    datalist, _ = write_list(tmp_path / "in")
    given = [*REGISTER, "--datalist", str(datalist), "--output_dir", str(tmp_path / "out")]
    said = fails([*given, *words], capsys)
    assert re.match(rf"fmirnet: error: {message}", said) and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--workers=2", "--scheduler=tcp://a:1"])
@pytest.mark.parametrize("command", ["register --moving=a --fixed=b --output_dir=o", "propagate --image=a --output=o"])
def test_one_case_has_no_workers(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "share out many cases; give --datalist" in fails([*command.split(), option], capsys)


def test_without_dask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(workers, "find_spec", lambda name: None)
    said = fails([*REGISTER, "--datalist", "a", "--output_dir", "b", "--scheduler", "tcp://a:1"], capsys)
    assert said.strip().endswith("is not installed; get it by: pip install 'fmirnet_monai[cluster]'.")
    found = at_a_time(own_environment, [1, 2, 3], CPU, "asking", "item", show=False, workers=Workers(2))
    assert os.getpid() not in {process for process, *_ in found} and {each for _, each, _ in found} == {1}
