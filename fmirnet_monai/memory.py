"""Peak memory of a method, in a process of its own."""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
import math
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from fmirnet_monai.workers import ended_processes, obey_parent

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEBI = 2**20


def peak_memory(work: Callable[[], Callable[[], object]]) -> float:
    """Most memory in MiB that a piece of work takes beyond what its process held before.

    Measured in a fresh process, for one that has worked already reuses what it kept.

    Args:
        work: prepares the work (modules, images, weights) and returns what does it; both must pickle.

    Returns:
        the GPU's memory where the work uses one, else the process's resident memory; NaN where the system tells
        neither (resident memory is Linux's).

    Raises:
        ChildProcessError: when that process is killed.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=obey_parent) as pool, ended_processes():
        try:
            return pool.submit(_measure, work).result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "memory: the process that measures it was killed, as happens when memory is short; what is done is "
                "kept: start again, or leave out --memory."
            ) from error


def _measure(work: Callable[[], Callable[[], object]]) -> float:
    run = work()
    _give_back()
    before = _status("VmRSS")
    if CLEAR.exists():
        CLEAR.write_text("5")  # the peak starts from here
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    run()
    if torch.cuda.is_available() and (used := torch.cuda.max_memory_allocated() - held) > 0:
        return used / MEBI
    return (_status("VmHWM") - before) / MEBI


def _give_back() -> None:
    """Return what the C library keeps of freed memory to the system, or the work would take it unnoticed."""
    gc.collect()
    library = ctypes.util.find_library("c")
    if library and hasattr(libc := ctypes.CDLL(library), "malloc_trim"):  # glibc's
        libc.malloc_trim(0)


def _status(field: str) -> float:
    """A field of the process's status in bytes."""
    if not STATUS.exists():
        return math.nan
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return 1024.0 * int(line.split()[1])
