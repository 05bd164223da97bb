"""Standard error, which may be gone or full before the work is done that it shows the progress of."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from fmirnet_monai.errors import PROGRAM, one_line


def show_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    """A warning as one line on stderr, above any progress bar, without the line of code that it comes from."""
    from tqdm import tqdm  # an exported bundle, which this file goes with, does without

    tqdm.write(f"{PROGRAM}: warning: {one_line(message)}", file=sys.stderr)


class BestEffort:
    """A stream of which a write that fails is none: a bar that can't be drawn ends no work.

    tqdm, where a write raises, keeps the lock that all bars share, and every thread would wait for it for ever.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As a stream's, but for errors."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As a stream's, but for errors."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def best_effort() -> Iterator[None]:
    """While the body runs, what can't be written to standard error is not."""
    before = sys.stderr
    sys.stderr = BestEffort(before)
    try:
        yield
    finally:
        sys.stderr = before
