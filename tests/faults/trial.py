"""Damaged files read in a process of its own, which may crash, hang or take all memory."""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmirnet_monai.errors import one_line

from .mutation import mutate
from .readers import READERS, Seed, unpacked

LIMIT = 10.0  # seconds
SPARE = 64 << 20  # bytes beyond four times the content
GUARD = 6 << 30  # of address space that a reader may ask for at once, more than any file here needs
LONGEST = 1000  # characters of a line that a person still reads
GOOD = ("read", "refused")
COPY, ENDED = "copy", "ended"  # what the server itself tells of: a new copy's number, how the last one ended
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Outcome:
    """What became of a damaged file.

    Attributes:
        result: ``read``, ``refused``, ``crash``, ``hang``, ``memory`` or ``message`` (it says nothing of the file, or
            too much).
        text: of the error.
        growth: of the process's memory in bytes, at most.
        seconds: that it took.
    """

    result: str
    text: str = ""
    growth: float = 0.0
    seconds: float = 0.0


def damaged(seeds: Sequence[Seed], number: int, seed: int) -> Seed:
    """The case of this number: one of the seeds, with its target damaged."""
    random = np.random.default_rng([seed, number])
    whole = seeds[number % len(seeds)]
    return replace(whole, files={**whole.files, whole.target: mutate(whole.files[whole.target], whole.form, random)})


class Reader:
    """A process that has loaded all and reads in a copy of itself, which is made again when it had to be ended."""

    def __init__(self, warm_up: Sequence[Seed]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(theirs, list(warm_up)), daemon=True)
        self.number = 0

    def __enter__(self) -> Reader:
        self.process.start()
        if refused := self.pipe.recv():
            raise ValueError(f"can't be read undamaged: {refused}")
        self.copy: int = self._next(COPY)
        return self

    def __exit__(self, *_: object) -> None:
        self.pipe.send(None)
        self.process.join()

    def read(self, case: Seed, folder: Path, limit: float = LIMIT) -> Outcome:
        """Read a case whose files stand in a folder."""
        begin = time.monotonic()
        self.number += 1
        self.pipe.send((self.number, case.reader, folder, case.given))
        found = self._answer(begin + limit)
        if found is None:
            self._end()
            found = Outcome("hang", f"not done after {limit:g} s")
        return self._judged(replace(found, seconds=time.monotonic() - begin), case, folder)

    def _answer(self, end: float) -> Outcome | None:
        """What is said of the last case until some time; None for nothing.

        A copy that died before it took a case leaves it to the next one, whose answer is nobody's by then.
        """
        while self.pipe.poll(max(0.0, end - time.monotonic())):
            about, said = self.pipe.recv()
            if about == self.number:
                return said
            if about == ENDED:
                self.copy = self._next(COPY)
                return Outcome("crash", said)
        return None

    def _next(self, wanted: str) -> Any:
        """What is said next about something, all else passed over."""
        while True:
            about, said = self.pipe.recv()
            if about == wanted:
                return said

    def _end(self) -> None:
        """End the copy; the next one tells its number."""
        os.kill(self.copy, signal.SIGKILL)
        self._next(ENDED)
        self.copy = self._next(COPY)

    def _judged(self, found: Outcome, case: Seed, folder: Path) -> Outcome:
        content = sum(unpacked(data) for data in case.files.values())
        if found.result == "memory" or found.growth > 4 * max(content, case.plain_bytes) + SPARE:
            self._end()
            return replace(found, result="memory")
        if found.result == "refused" and (fault := message_fault(found.text, case, folder)):
            return replace(found, result="message", text=f"{fault}: {found.text}")
        return found


def message_fault(text: str, case: Seed, folder: Path) -> str:
    """Why an error's text is no line that helps a person, ``""`` where it is one."""
    line = one_line(text)
    if str(folder) not in line and not any(Path(name).name in line for name in case.files):
        return "names no file"
    if len(line) > LONGEST:
        return "too long"
    return "" if line.isprintable() else "holds control characters"


def keep(case: Seed, outcome: Outcome, folder: Path) -> None:
    """Write a case and what became of it, to be looked at."""
    shutil.rmtree(folder, ignore_errors=True)
    case.write(folder / "files")
    text = f"{outcome.result}: reader {case.reader!r} of {case.given}, damaged: {case.target}\n{outcome.text}\n"
    (folder / "outcome.txt").write_text(text, errors="backslashreplace")


def _serve(pipe: Connection, warm_up: Sequence[Seed]) -> None:
    """Load all, then serve in a copy of this process, and in another one when that ends."""
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"  # threads would not be in the copy
    torch.set_num_threads(1)
    pipe.send(_load(warm_up))
    while True:
        copy = os.fork()
        if copy == 0:
            _work(pipe)
            os._exit(0)
        pipe.send((COPY, copy))
        code = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
        if code == 0:
            os._exit(0)  # at once: what is loaded takes seconds to be taken down
        pipe.send((ENDED, f"the process ended with {code}"))


def _load(warm_up: Sequence[Seed]) -> str:
    """Read each seed, for what is loaded on first use is no growth of a reader; why one can't be read."""
    for whole in warm_up:
        with tempfile.TemporaryDirectory() as folder:
            whole.write(Path(folder))
            outcome = _attempt(whole.reader, Path(folder) / whole.given)
        if outcome.result != "read":
            return f"{whole.kind} {whole.target}: {outcome.text}"
    return ""


def _work(pipe: Connection) -> None:
    """Read what comes through the pipe until it brings None."""
    size = int(_status("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (size + GUARD, size + GUARD))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while (task := pipe.recv()) is not None:
        number, reader, folder, given = task
        before = _status("VmRSS")
        if CLEAR.exists():
            CLEAR.write_text("5")  # the peak starts from here
        outcome = _attempt(reader, folder / given)
        pipe.send((number, replace(outcome, growth=_status("VmHWM") - before)))


def _attempt(reader: str, path: Path) -> Outcome:
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            READERS[reader](path)
        return _noise(said)
    except (ValueError, OSError) as error:
        return Outcome("memory" if _short_of_memory(error) else "refused", str(error))
    except MemoryError:
        return Outcome("memory", traceback.format_exc())
    except BaseException:
        return Outcome("crash", traceback.format_exc())


def _noise(said: Sequence[warnings.WarningMessage]) -> Outcome:
    """Warnings that tell of a line of code, not of a file, are a failure too."""
    for warning in said:
        if warning.filename != "fmirnet_monai" and issubclass(warning.category, RuntimeWarning):
            return Outcome(
                "crash", f"{warning.filename}:{warning.lineno}: {warning.category.__name__}: {warning.message}"
            )
    return Outcome("read")


def _short_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or re.search(r"bad_alloc|(allocat|enough).*memory|memory.*alloc", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _status(field: str) -> float:
    """A field of the process's status in bytes; 0 where the system doesn't tell."""
    if not STATUS.exists():
        return 0.0
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return 1024.0 * int(line.split()[1])
