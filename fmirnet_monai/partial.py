"""Where results are written before they are whole: folders that the next run removes where this one is killed."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from uuid import uuid4

try:
    import fcntl
except ImportError:  # Windows, where what a killed run has left stays
    fcntl = None  # type: ignore[assignment]

FAILED_WRITES = {errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EPERM, errno.EROFS}
PACKAGE = Path(__file__).resolve().parent
SELDOM = 100  # times as long as looking through a place takes, until it is done again
_again: dict[Path, float] = {}  # from when on each place may be looked through again
FORM = re.compile(r"\..+_partial_[0-9a-f]{12}")


@contextmanager
def partial_folder(target: str | Path) -> Iterator[Path]:
    """An empty folder to write in what then moves to ``target``; it is removed when the body ends.

    It lies in ``target`` where that is a folder, whose parent may be another disk or not the user's, else beside it.
    What runs that were killed have left of such folders there is removed, too. A run holds a lock on its own as long as
    it lives, whatever its process and computer, and the system gives that up when it is killed.

    Raises:
        OSError: when the folder can't be made.
    """
    wanted = Path(target).absolute()
    places = [wanted.parent, *([wanted] if wanted.is_dir() else [])]
    for place in places:
        _remove_leftovers(place)
    missing = [place for place in wanted.parents if not place.exists()]
    folder, held = places[-1], None
    try:
        while held is None:
            folder = places[-1] / f".{wanted.name}_partial_{uuid4().hex[:12]}"  # known here before it is there
            held = _make(folder)
        yield folder
    except OSError as error:
        said = str(error).replace(f"{folder / wanted.name}", f"{target}").replace(f"{folder}", f"{target}")
        if error.errno is None and said != str(error):  # the user knows of the target alone
            raise OSError(said) from error
        raise
    finally:
        if folder != places[-1]:
            shutil.rmtree(folder, ignore_errors=True)
        if held is not None and held >= 0:
            os.close(held)
        with suppress(OSError):  # of one that holds something by now
            for place in missing:
                place.rmdir()


def require_outside(path: str | Path) -> None:
    """Raise PermissionError for a place in the installed package, which is not the user's to write to."""
    if PACKAGE in Path(path).resolve().parents:
        raise PermissionError(
            f"{path}: lies in the installed package, where nothing is written; name another folder, or copy the bundle "
            "that is to be trained: fmirnet bundle copy NAME --output_dir DIR"
        )


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn what the system says of a full disk, a folder without rights, … into one line about ``path``.

    The body may read other files: what is said of those by name passes.
    """
    target = Path(path).absolute()
    require_outside(target)
    try:
        yield
    except OSError as error:
        named = None if error.filename is None else Path(os.fsdecode(error.filename)).absolute()
        own = named is None or named in (target, *target.parents) or any(map(FORM.fullmatch, named.parts))
        if error.errno not in FAILED_WRITES or not own:
            raise
        kind = PermissionError if isinstance(error, PermissionError) else OSError
        text = f"{path}: can't be written ({os.strerror(error.errno)}); check the folder's rights and space."
        raise kind(text) from error


def _make(folder: Path) -> int | None:
    """Make a folder and hold its lock: the file descriptor that does, -1 where there are no locks.

    None where another run has taken it, before it was locked, for a leftover, or its place for an empty one.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        folder.mkdir(mode=0o700)
        if fcntl is None:
            return -1
        held = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:  # a file system without locks, where none is ever removed
                return held
        else:
            if folder.exists():
                return held
        os.close(held)
    return None


def _remove_leftovers(place: Path) -> None:
    """Remove the folders of this kind whose run is dead, with a hundredth of the time at most: a place may be large."""
    found: list[Path] = []
    begin = monotonic()
    if fcntl is None or begin < _again.get(place, 0.0):
        return
    with suppress(OSError), os.scandir(place) as entries:
        found = [Path(entry.path) for entry in entries if FORM.fullmatch(entry.name) and entry.is_dir()]
    for folder in found:
        with suppress(OSError):
            held = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(held)
    _again[place] = monotonic() + SELDOM * (monotonic() - begin)
