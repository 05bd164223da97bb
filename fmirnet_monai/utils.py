"""Small things that several rooms need."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from tqdm import tqdm

Item = TypeVar("Item")
Found = TypeVar("Found")
BESIDE_GPU = 4  # items at a time, of which the GPU works on one
GUIDED = "guided_"  # before the name of a metric: it was used as guide, and measures how closely that was followed


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file whole or not at all: the body writes the path it gets, which then takes the place of ``path``.

    The temporary file stands in the same folder and keeps the suffix; it is removed when the body fails.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"partial_{target.name}")
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text)


def save_checkpoint(path: str | Path, state: object) -> None:
    """``torch.save`` whole or not at all, so that a run killed meanwhile keeps its previous file."""
    with replacing(path) as partial:
        torch.save(state, partial)


def known_suffix(path: str | Path, known: Sequence[str]) -> str:
    """The one of ``known`` suffixes, such as ``.nii.gz``, that a file's name ends in.

    Raises:
        ValueError: for any other.
    """
    for suffix in known:
        if str(path).lower().endswith(suffix):
            return suffix
    raise ValueError(f"{path}: unknown suffix, expected one of {', '.join(known)}; rename or convert the file.")


def package_version(package: str) -> str:
    """Version of an installed package, ``not installed`` otherwise."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def reason(error: Exception) -> str:
    """One line of an exception's text: of ITK's many the one that says what happened, else the last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = next((line for line in lines if line.startswith("ITK ERROR")), lines[-1])
    return re.sub(r"^ITK ERROR: (\w+\(0x\w+\): )?", "", said).rstrip(".")[:200]


def warn(text: str) -> None:
    """Warn of what lies in the user's files or settings: the text alone, no line of this package's code with it."""
    warnings.warn_explicit(text, UserWarning, filename="fmirnet_monai", lineno=1)


def best_device() -> torch.device:
    """CUDA, Apple's MPS or the CPU, whichever is there first."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def distributed_device() -> torch.device:
    """This process's own GPU under ``torchrun``, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def process_rank() -> int:
    """Number of this process among those of ``torchrun``, 0 when it runs alone."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    return int(os.environ.get("RANK", "0"))


def at_a_time(
    work: Callable[[Item], Found], items: Sequence[Item], device: torch.device, doing: str, unit: str, show: bool = True
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
    """
    threads = torch.get_num_threads()
    workers = threads if device.type == "cpu" else BESIDE_GPU
    torch.set_num_threads(1 if device.type == "cpu" else threads)  # of the pool's threads too
    try:
        with ThreadPoolExecutor(workers) as pool:
            jobs = [pool.submit(work, item) for item in items]
            try:
                for job in tqdm(as_completed(jobs), doing, len(jobs), unit=unit, disable=not show):
                    job.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(threads)
    return [job.result() for job in jobs]
