"""Several items at a time, in threads or processes that end with the one that began them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, TypeVar

import torch
from tqdm import tqdm

Item = TypeVar("Item")
Found = TypeVar("Found")
PATIENCE = 5.0  # seconds that a process may take to end
BESIDE_GPU = 4  # items at a time, of which the GPU works on one


def at_a_time(
    work: Callable[[Item], Found],
    items: Sequence[Item],
    device: torch.device,
    doing: str,
    unit: str,
    show: bool = True,
    said: Callable[[Found], object] = lambda found: None,
    processes: bool = False,
) -> list[Found]:
    """What the work gives for each item, several at a time.

    As many as torch has threads (``OMP_NUM_THREADS``), one thread each: small images keep no more than one busy. On a
    GPU a few at a time, so that it doesn't wait for what the processor does before and after. The first error ends it.

    Args:
        work: of one item.
        items: in the order of the results.
        device: that works.
        doing: before the progress bar.
        unit: of the bar.
        show: the bar.
        said: gets each result as soon as it is there.
        processes: share the items out over processes in place of threads, which wait for each other while Python
            itself works. Each takes a few seconds to begin. Work, items and results must pickle. On a GPU, and where
            one at a time is all, there are none.

    Raises:
        ChildProcessError: when such a process is.
    """
    threads = torch.get_num_threads()
    workers = min(threads if device.type == "cpu" else BESIDE_GPU, max(1, len(items)))
    apart = processes and device.type == "cpu" and workers > 1
    torch.set_num_threads(1 if device.type == "cpu" else threads)  # of the pool's threads too
    try:
        with _processes(workers, work) if apart else ThreadPoolExecutor(workers) as pool:
            jobs: list[Future] = []
            try:
                with ended_processes():
                    with _uninterrupted():
                        jobs += [pool.submit(_work_on if apart else work, item) for item in items]
                    for job in tqdm(as_completed(jobs), doing, len(jobs), unit=unit, disable=not show):
                        said(job.result())
            except BrokenProcessPool as error:
                raise ChildProcessError(
                    f"{doing}: one of {workers} processes was killed, as happens when memory is short; set "
                    "OMP_NUM_THREADS to a smaller number."
                ) from error
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(threads)
    return [job.result() for job in jobs]


def _processes(workers: int, work: Callable[[Any], Any]) -> Executor:
    """Fresh processes of one thread each, which hold ``work``: forked ones would inherit ITK's and torch's threads."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin, initargs=(work,))


_held: list[Callable[[Any], Any]] = []  # where this process is one of those of ``_processes``


def _begin(work: Callable[[Any], Any]) -> None:
    """One thread, the end of the process that began it, and no deprecation warning between the progress bar's lines."""
    _held[:] = [work]
    obey_parent()
    warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
    torch.set_num_threads(1)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"


def obey_parent() -> None:
    """Let the process that began this one say when to end: it gets a terminal's interrupt too, and may be killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    tqdm.set_lock(threading.RLock())  # its own is one of the system, which outlives a process that is ended
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _leave(number: int, frame: object) -> None:
    """End by an exception, which lets what is half-written go."""
    sys.exit(128 + number)


def _end_with_parent() -> None:
    """Wait for the parent's end, which the pool's own processes don't notice."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def ended_processes() -> Iterator[None]:
    """When the user interrupts the body, end the processes that it began: nothing of theirs is worth waiting for."""
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception):
            begun = set(multiprocessing.active_children()) - before
            for process in begun:
                process.terminate()
            for process in begun:
                process.join(PATIENCE)
                process.kill()
        raise


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold interrupts back until the end, or a process would begin by halves; what begins never gets a terminal's."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, frame: came.append(number))
    resource_tracker.ensure_running()  # which would let interrupts through again
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
    for missed in came:
        signal.raise_signal(missed)


def _work_on(item: Any) -> Any:
    (work,) = _held
    try:
        return work(item)
    except SystemExit:  # the pool would give it to the parent and go on with the next item
        os._exit(1)
