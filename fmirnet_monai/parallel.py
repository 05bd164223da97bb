"""Several items at a time: in threads, in processes that end with the one that began them, or on a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from fmirnet_monai.workers import Workers, begin_worker, ended_processes, obey_parent, threads_each, uninterrupted

Item = TypeVar("Item")
Found = TypeVar("Found")
BESIDE_GPU = 4  # items at a time, of which the GPU works on one


def at_a_time(
    work: Callable[[Item], Found],
    items: Iterable[Item],
    device: torch.device,
    doing: str,
    unit: str,
    show: bool = True,
    said: Callable[[Found], object] = lambda found: None,
    processes: bool = False,
    alone: bool = False,
    workers: Workers | None = None,
    folder: str | Path = ".",
    lost: Callable[[Item, str], Found] | None = None,
) -> list[Found]:
    """What the work gives for each item, several at a time.

    As many as torch has threads (``OMP_NUM_THREADS``), one thread each: small images keep no more than one busy. On a
    GPU a few at a time, so that it doesn't wait for what the processor does before and after. The first error ends it.
    So many ``workers`` share torch's threads out among them.

    Args:
        work: of one item.
        items: in the order of the results.
        device: that works, unless there are workers, which know their own.
        doing: before the progress bar.
        unit: of the bar.
        show: the bar.
        said: gets each result as soon as it is there.
        processes: share the items out over processes in place of threads, which wait for each other while Python
            itself works. Each takes a few seconds to begin. Work, items and results must pickle. On a GPU, and where
            one at a time is all, there are none.
        alone: without workers, one item after the other, with all threads.
        workers: who works in place of these; work, items and results must pickle.
        folder: that results are written to, which all workers of a cluster must see.
        lost: gives the result of an item at which workers of a cluster died again and again, and why; by default it
            ends the others.

    Raises:
        ChildProcessError: when such a process is killed, or worker after worker at one item.
        OSError: for a cluster that can't be reached, or does not see the folder.
    """
    workers = workers or Workers()
    if workers.dask:
        from fmirnet_monai.cluster import share_out

        return share_out(work, list(items), workers, Path(folder), doing, unit, show, said, lost)
    if alone and not workers:
        return _in_turn(work, items, doing, unit, show, said)
    items = list(items)
    threads, cpu = torch.get_num_threads(), device.type == "cpu"
    count = min(workers.count or (threads if cpu else BESIDE_GPU), max(1, len(items)))
    each = threads_each(count) if workers else 1 if cpu else threads
    apart = count > 1 and (bool(workers) or (processes and cpu))
    torch.set_num_threads(each)  # of the pool's threads too
    try:
        with _processes(count, work, each) if apart else ThreadPoolExecutor(count) as pool:
            jobs: list[Future] = []
            try:
                with ended_processes():
                    with uninterrupted():
                        jobs += [pool.submit(_work_on if apart else work, item) for item in items]
                    for job in tqdm(as_completed(jobs), doing, len(jobs), unit=unit, disable=not show):
                        said(job.result())
            except BrokenProcessPool as error:
                fewer = "give fewer --workers" if workers else "set OMP_NUM_THREADS to a smaller number"
                raise ChildProcessError(
                    f"{doing}: one of {count} processes was killed, as happens when memory is short; {fewer}."
                ) from error
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(threads)
    return [job.result() for job in jobs]


def _in_turn(
    work: Callable[[Item], Found],
    items: Iterable[Item],
    doing: str,
    unit: str,
    show: bool,
    said: Callable[[Found], object],
) -> list[Found]:
    results = []
    for item in tqdm(items, doing, unit=unit, disable=not show):
        results.append(work(item))
        said(results[-1])
    return results


def _processes(workers: int, work: Callable[[Any], Any], threads: int) -> Executor:
    """Fresh processes of so many threads, which hold ``work``: forked ones would inherit ITK's and torch's threads."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin, initargs=(work, threads))


_held: list[Callable[[Any], Any]] = []  # where this process is one of those of ``_processes``


def _begin(work: Callable[[Any], Any], threads: int) -> None:
    """The work, its threads, and the end of the process that began this one."""
    _held[:] = [work]
    obey_parent()
    begin_worker(threads)


def _work_on(item: Any) -> Any:
    (work,) = _held
    try:
        return work(item)
    except SystemExit:  # the pool would give it to the parent and go on with the next item
        os._exit(1)
