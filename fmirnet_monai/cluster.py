"""Many items on a Dask cluster: workers of this computer, or those that a scheduler has.

What is sent is bytes, so that a scheduler needs no more of this package than this module, which loads nothing.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tqdm import tqdm

from fmirnet_monai.partial import partial_folder, remove_leftovers
from fmirnet_monai.version import __version__

if TYPE_CHECKING:
    from distributed import Client, Future, Scheduler

    from fmirnet_monai.workers import Workers

CHUNK = 8  # items of a task at most
SHARES = 16  # tasks for each worker at least, before any has several items
DEATHS = 3  # of local workers at one task, after which it is given up
PATIENCE = 10.0  # seconds for a scheduler to answer, and for a new folder to be seen on another computer
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
ALL = "all"  # topic of Dask's own events
KEPT = "item_"  # name of an item's result in the folder of a run


@dataclass(frozen=True)
class _Run:
    """What all tasks of a run share.

    Attributes:
        folder: of the run, in the one that results go to; it is there as long as the run, with what each item gave.
        topic: of the events that tell of an item that is done.
        work: pickled.
        threads: of each worker; None for what its own environment gives it.
        version: of this package.
    """

    folder: str
    topic: str
    work: bytes
    threads: int | None
    version: str = __version__


def share_out(
    work: Callable[[Any], Any],
    items: Sequence[Any],
    workers: Workers,
    folder: Path,
    doing: str,
    unit: str,
    show: bool,
    said: Callable[[Any], object],
    lost: Callable[[Any, str], Any] | None,
) -> list[Any]:
    """What the work gives for each item; see :py:func:`fmirnet_monai.parallel.at_a_time`, which calls it."""
    from distributed.protocol.pickle import dumps, loads

    if not items:
        return []
    found: dict[int, Any] = {}
    with _client(workers, len(items), folder.absolute()) as (client, threads), ExitStack() as stack:
        place = stack.enter_context(partial_folder(folder.absolute() / "run"))
        bar = stack.enter_context(tqdm(desc=doing, total=len(items), unit=unit, disable=not show))
        run = _Run(str(place), f"fmirnet-{uuid4().hex}", dumps(work), threads)
        tasks = _Tasks(client, run, items, doing)
        stack.callback(tasks.end)

        def take(number: int, result: Any) -> None:
            if number not in found:
                found[number] = result
                said(result)
                bar.update()

        for chunk in chunks(len(items), len(client.scheduler_info(n_workers=-1)["workers"])):
            tasks.begin(chunk)
        while len(found) < len(items):
            arrived = tasks.next()
            for number, result in arrived.results:
                take(number, loads(result))
            missing = [number for number in arrived.numbers if number not in found]
            if arrived.died and len(missing) > 1:  # one of them may be what workers die of
                for number in missing:
                    tasks.begin([number])
            elif arrived.died and missing:
                reason = f"{arrived.died} workers died at it one after the other, as happens when memory is short."
                if lost is None:
                    raise ChildProcessError(f"{doing}: {reason}")
                take(missing[0], lost(items[missing[0]], reason))
            elif missing:
                raise OSError(f"{folder}: workers no longer see it; what is done is kept: start the command again.")
    return [found[number] for number in range(len(items))]


def chunks(items: int, workers: int) -> list[list[int]]:
    """The numbers of so many items, those of each task; more than one only where each worker has many tasks."""
    size = min(CHUNK, max(1, items // (SHARES * max(1, workers))))
    return [list(range(first, min(items, first + size))) for first in range(0, items, size)]


@dataclass(frozen=True)
class _Arrived:
    """News of a run: pickled results, and of a task that has ended the items' numbers and how many workers died."""

    results: Sequence[tuple[int, bytes]]
    numbers: Sequence[int] = ()
    died: int = 0


class _Tasks:
    """The tasks of a run, and what comes of them, in the order in which it comes."""

    def __init__(self, client: Client, run: _Run, items: Sequence[Any], doing: str) -> None:
        self.client, self.run, self.items, self.doing = client, run, items, doing
        self.running: dict[str, tuple[Future, list[int]]] = {}
        self.mail: queue.SimpleQueue[str | dict[str, Any]] = queue.SimpleQueue()  # of done tasks' keys, and of events
        client.subscribe_topic(run.topic, lambda event: self.mail.put(event[1]))
        client.subscribe_topic(ALL, self._tell)

    def begin(self, numbers: list[int]) -> None:
        """Let the cluster work on the items of these numbers."""
        from distributed.protocol.pickle import dumps

        given = dumps([(number, self.items[number]) for number in numbers])
        key = f"{self.doing}-{uuid4().hex}"
        self.running[key] = self.client.submit(work_through, self.run, given, key=key, pure=False), numbers
        self._watch(self.running[key][0])

    def end(self) -> None:
        """Let the cluster forget what is still to be done, and tell no more."""
        for topic in (self.run.topic, ALL):
            self.client.unsubscribe_topic(topic)
        self.client.cancel([future for future, _ in self.running.values()])

    def _watch(self, future: Future) -> None:
        future.add_done_callback(lambda done: self.mail.put(done.key))

    def next(self) -> _Arrived:
        """Wait for the next news.

        Raises:
            OSError: when the scheduler is gone.
            Exception: that the work raised.
        """
        from distributed import KilledWorker

        news = self.mail.get()
        if not isinstance(news, str):
            return _Arrived([(news["number"], news["result"])])
        future, numbers = self.running[news]
        if future.status in ("lost", "pending"):  # its worker died before it was fetched, it is done again
            self._watch(future)
            return _Arrived([])
        del self.running[news]
        error = future.exception() if future.status == "error" else None
        if isinstance(error, KilledWorker):
            return _Arrived([], numbers, error.allowed_failures + 1)
        if error is not None and _lacks_package(error):
            raise ImportError(
                f"scheduler: {self.client.scheduler.address} or its workers can't read what this command sends; pip "
                "install the same versions of fmirnet_monai and Dask on all computers"
            ) from error
        if error is not None:
            raise error
        if future.status != "finished":
            raise ConnectionError(
                f"scheduler: the connection to {self.client.scheduler.address} is lost; what is done is kept: start "
                "the command again."
            )
        return _Arrived(future.result(), numbers)

    def _tell(self, event: tuple[float, Any]) -> None:
        """Note the end of a worker at one of these tasks."""
        what = event[1] if isinstance(event[1], dict) else {}
        died = what.get("action") == "remove-worker" and not what.get("expected")
        if died and any(key in self.running for key in what.get("processing-tasks", ())):
            _note("a worker died, as happens when memory is short; what it was at is done again.")


def _lacks_package(error: BaseException) -> bool:
    """Whether it is told by a scheduler or worker that has this package not, or another version of it or of Dask."""
    absent = isinstance(error, ImportError) and str(error.name).startswith(__package__)
    return absent or "deserializ" in str(error).lower()


def work_through(run: _Run, given: bytes) -> list[tuple[int, bytes]]:
    """On a worker: the number of each item and what the work gives for it.

    What another worker had done before it died is not done again. Where the command has ended, the rest is left.

    Raises:
        OSError: where the folder of the results can't be seen.
        ImportError: where the worker has another version of this package.
    """
    from distributed import get_worker
    from distributed.protocol.pickle import dumps, loads

    from fmirnet_monai.workers import begin_worker, threads_each

    worker, place = get_worker(), Path(run.folder)
    _require(run, worker.address)
    begin_worker(run.threads or threads_each(worker.state.nthreads))
    work = _work(run.work)
    done = []
    for number, item in loads(given):
        if not place.is_dir():
            break
        kept = place / f"{KEPT}{number}"
        if not kept.is_file():
            half = place / f"half_{uuid4().hex}"
            half.write_bytes(dumps(work(item)))
            os.replace(half, kept)
        done.append((number, kept.read_bytes()))
        worker.log_event(run.topic, {"number": number, "result": done[-1][1]})
    return done


def _require(run: _Run, address: str) -> None:
    """Make sure that this worker can do what is asked for."""
    if run.version != __version__:
        raise ImportError(
            f"the worker {address} has fmirnet_monai {__version__}, this command {run.version}; pip install the same "
            "version on all computers"
        )
    end = time.monotonic() + PATIENCE
    while not os.path.isdir(run.folder):
        if time.monotonic() > end:
            raise OSError(
                f"{os.path.dirname(run.folder)}: can't be seen by the worker {address}; results go by file, so that "
                "all workers need the file system of this command, at the same path."
            )
        time.sleep(0.2)


@lru_cache(maxsize=2)
def _work(pickled: bytes) -> Callable[[Any], Any]:
    """The work, which stays here with all that it has loaded."""
    from distributed.protocol.pickle import loads

    return loads(pickled)


@contextmanager
def _client(workers: Workers, items: int, folder: Path) -> Iterator[tuple[Client, int | None]]:
    """The client of a cluster, whose dashboard is told, and each worker's threads, None where they are its own affair.

    Raises:
        OSError: when nothing answers at the scheduler's address.
    """
    from distributed import Client
    from distributed.comm.addressing import get_address_host_port
    from distributed.utils import silence_logging_cmgr

    if workers.count is not None:
        with _local(min(workers.count, items), folder) as (client, threads):
            yield client, threads
        return
    with silence_logging_cmgr(logging.CRITICAL):  # what there is to tell stands in one line
        try:
            # of what is no address Dask leaves a client that fails again 20 s later
            get_address_host_port(str(workers.scheduler), strict=True)
            client = Client(workers.scheduler, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise OSError(
                f"scheduler: nothing answers at {workers.scheduler}; check the address, such as tcp://host:8786, and "
                "that 'dask scheduler' runs there."
            ) from error
        with client:
            _tell_of(client)
            yield client, None


@contextmanager
def _local(count: int, folder: Path) -> Iterator[tuple[Client, int]]:
    """A cluster of processes of this computer, which share torch's threads and end with the body."""
    import dask
    from distributed import Client, LocalCluster

    from fmirnet_monai.workers import threads_each, uninterrupted

    threads, begun = threads_each(count), set(multiprocessing.active_children())
    config = {"distributed.scheduler.worker-saturation": 1.0}  # or one that waits would count among what workers die of
    with ExitStack() as stack:
        stack.push(partial(_remove_halves, folder))
        stack.enter_context(_environment(dict.fromkeys(THREADS, str(threads))))
        stack.enter_context(dask.config.set(config))
        with uninterrupted(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Port .* is already in use")  # then the dashboard has another
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    memory_limit=0,
                    dashboard_address="127.0.0.1:8787" if find_spec("bokeh") else None,
                    scheduler_kwargs={"allowed_failures": DEATHS - 1},
                    silence_logs=logging.CRITICAL,
                )
            )
            client = stack.enter_context(Client(cluster, set_as_default=False))
        _tell_of(client)
        try:
            yield client, threads
        except BaseException:  # nothing of theirs is worth waiting for
            for nanny in cluster.workers.values():
                nanny.auto_restart = False
            for process in set(multiprocessing.active_children()) - begun:
                process.kill()
            raise


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """What this process begins has these variables; they, and what Dask sets itself, are undone in the end."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _remove_halves(folder: Path, kind: type[BaseException] | None, *_: object) -> None:
    """After an error, remove what the workers that it ended have left half-written."""
    if kind is not None and folder.is_dir():
        for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
            remove_leftovers(place)


def _tell_of(client: Client) -> None:
    """Where to watch the cluster, and that it has no workers yet."""
    with suppress(Exception):  # of a scheduler without this package, which is told later
        if client.run_on_scheduler(_has_dashboard):
            _note(f"dashboard: {client.dashboard_link}")
    if not client.scheduler_info()["workers"]:
        _note("the cluster has no workers yet; waiting for them.")


def _has_dashboard(dask_scheduler: Scheduler) -> bool:
    """On the scheduler: whether there is more than its bare figures."""
    return bool(dask_scheduler.http_application.applications)


def _note(text: str) -> None:
    tqdm.write(f"note: {text}", file=sys.stderr)
