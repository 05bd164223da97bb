"""Who works on many items, and how a process that works for another one begins and ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import resource_tracker

import torch
from tqdm import tqdm

from fmirnet_monai.streams import show_warning

PATIENCE = 5.0  # seconds that a process may take to end


@dataclass(frozen=True)
class Workers:
    """Who works on many items; without either, whatever the work takes by default.

    Attributes:
        count: so many processes of this computer: a local cluster where Dask is installed, else the standard library's.
        scheduler: address of a Dask cluster's scheduler, such as ``tcp://host:8786``.

    Raises:
        ValueError: for both, or fewer than one.
        ModuleNotFoundError: for a scheduler where Dask is not installed.
    """

    count: int | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.scheduler is not None:
            raise ValueError(
                f"give either --workers {self.count}, of this computer, or --scheduler {self.scheduler}, whose cluster "
                "has its own."
            )
        if self.count is not None and self.count < 1:
            raise ValueError(f"workers must be at least 1, got {self.count}.")
        if self.scheduler is not None and not _has_dask():
            raise ModuleNotFoundError("a scheduler is one of Dask's", name="distributed")

    def __bool__(self) -> bool:
        return self.count is not None or self.scheduler is not None

    @property
    def dask(self) -> bool:
        """Whether these are workers of Dask."""
        return self.scheduler is not None or (self.count is not None and _has_dask())


def _has_dask() -> bool:
    try:
        return find_spec("distributed") is not None
    except ImportError:
        return False


def threads_each(count: int) -> int:
    """Threads that each of so many processes gets of those that torch has here."""
    return max(1, torch.get_num_threads() // count)


def begin_worker(threads: int) -> None:
    """Prepare a process that works for another one: its threads, and warnings as lines that fit beside a bar."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
    warnings.showwarning = show_warning
    _lock_bars()
    torch.set_num_threads(threads)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)


def obey_parent() -> None:
    """Let the process that began this one say when to end: it gets a terminal's interrupt too, and may be killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    _lock_bars()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _lock_bars() -> None:
    """Give tqdm a lock of this process: its own is one of the system, which outlives a process that is ended."""
    tqdm.set_lock(threading.RLock())


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
def uninterrupted() -> Iterator[None]:
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
