"""A user's interrupt and a request to end, as exceptions that let what is half-written go."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fmirnet_monai.errors import TERMINATED

AGAIN = 0.2  # seconds after which an exception that something has swallowed is raised again


class Terminated(SystemExit):
    """The process is asked to end."""


@contextmanager
def told_to_stop() -> Iterator[None]:
    """While the body runs, an interrupt raises KeyboardInterrupt in it and a request to end Terminated.

    Python loses one now and then, such as while it compiles a module: it is raised until the body is left.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    asked: list[type[BaseException]] = []

    def stop(number: int, frame: object) -> None:
        if number != signal.SIGALRM:
            asked[:] = [KeyboardInterrupt if number == signal.SIGINT else Terminated]
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
        if not _leaving():
            raise asked[0] if asked[0] is KeyboardInterrupt else Terminated(TERMINATED)

    before = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT)}
    kept = [number for number, handler in before.items() if handler in (None, signal.SIG_IGN)]
    for number in before:
        if number not in kept or number == signal.SIGALRM:
            signal.signal(number, stop)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def _leaving() -> bool:
    """Whether such an exception is on its way out, through what removes what is half-written."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, KeyboardInterrupt | Terminated):
            return True
        error = error.__context__
    return False
