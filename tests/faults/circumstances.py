"""Faults that lie in no file: rights that are missing, a disk that is full."""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CAPABILITIES, OVERRIDING = 0x20080522, 0b110  # version of the system's call; to read and write whatever the rights say
SPACE = 600  # bytes that a file may have


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Without root's privilege to read and write what it may not, as any other user is."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, held = (ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, held) == 0
    kept = held[0]
    held[0] = kept & ~OVERRIDING
    assert libc.capset(header, held) == 0
    try:
        yield
    finally:
        held[0] = kept
        assert libc.capset(header, held) == 0


@contextmanager
def forbidden(path: Path, rights: int) -> Iterator[None]:
    """A file or folder with these rights only."""
    before = path.stat().st_mode
    path.chmod(rights)
    try:
        with ordinary_user():
            yield
    finally:
        path.chmod(before)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may become larger than :py:data:`SPACE`: the system's answer differs from a full disk's in its number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SPACE, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
