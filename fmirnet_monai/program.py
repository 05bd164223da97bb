"""A bundle as a program, ``python -m monai.bundle``: what goes wrong is told in one line, and only what is the user's.

MONAI's own notice that a config is code stays: it comes before anything of this package is loaded.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from fmirnet_monai.errors import PROGRAM, STOPPED, TERMINATED, explain
from fmirnet_monai.streams import BestEffort

ROOT = Path(__file__).parent
LATER = re.compile(r"\n\n(?:The above exception was|During handling of).*\n\n")  # between two tracebacks in one text


def serve_bundles() -> None:
    """Set the process up where MONAI's bundle commands are its program; a process that imports this stays as it is."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is None or not spec.name.startswith("monai.bundle"):
        return
    warnings.filterwarnings("ignore", category=FutureWarning, module="monai")  # its deprecated calls of itself
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")  # a decoder of NVIDIA's for DICOM
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    sys.excepthook = report
    sys.stderr = BestEffort(sys.stderr)
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def report(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """One line on stderr for what the user can mend, the traceback for anything else."""
    message = STOPPED if isinstance(error, KeyboardInterrupt) else told(error)
    if message:
        print(f"\n{PROGRAM}: error: {message}", file=sys.stderr)  # below any progress bar
    else:
        sys.__excepthook__(kind, error, where)


def told(error: BaseException) -> str:
    """What this package, or else the system, says of an error under what MONAI puts around it; empty for neither."""
    chain = list(_causes(error))
    for one in chain:
        frames = traceback.extract_tb(one.__traceback__)
        if frames and _own(frames[-1].filename) and (line := explain(one)):
            return line
    for one in chain:
        if "in DataLoader worker process" in str(one) and (line := _of_worker(str(one))):
            return line
    for one in reversed(chain):
        if isinstance(one, OSError | ImportError | MemoryError | RuntimeError) and (line := explain(one)):
            return line
    return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, what that was raised from, …."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _of_worker(text: str) -> str:
    """The same of an error in another process, of which there is only the text."""
    for part in reversed(LATER.split(text)):
        files = re.findall(r'^ +File "(.+)", line \d+', part, re.MULTILINE)
        said = re.search(r"^\w+(?:Error|Structure): ((?:.|\n)+)", part, re.MULTILINE)
        if files and said and _own(files[-1]):
            return " ".join(said[1].split())
    return ""


def _own(file: str) -> bool:
    return ROOT in Path(file).absolute().parents


def _terminate(number: int, frame: object) -> None:
    """End by an exception, so that what is half-written goes."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if os.getpid() != PROCESS:  # a worker that was forked
        os.kill(os.getpid(), number)
    print(f"\n{PROGRAM}: error: {STOPPED}", file=sys.stderr)
    sys.exit(TERMINATED)


PROCESS = os.getpid()
