"""Where results go: what can't be written is told before the work, and nothing that is not a result's own is lost."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fmirnet_monai.formats import known_suffix
from fmirnet_monai.partial import partial_folder, require_outside, writing

METRICS = "metrics.json"
RESULT = frozenset(
    {"warped.nii.gz", "warped_label.nii.gz", "warped_points.csv", "inside.nii.gz", "displacement.nii.gz", METRICS}
    | {"inverse_displacement.nii.gz", "transform.h5", "report.html", "transform.dcm", "warped_label.dcm"}
    | {"uncertainty.nii.gz", "reference.nii.gz", "labels.nii.gz", "series.csv"}
)
SERIES = "warped"  # folder of a DICOM series in a result, whose files are named by number
SLICE = re.compile(rf"{SERIES}/\d{{5,}}\.dcm")
FRAME = re.compile(r"frame_\d{3,}_(transform\.h5|displacement\.nii\.gz|points\.csv)")  # of a series over time


def require_output(path: str | Path, suffixes: Sequence[str] | None, inputs: Iterable[str | Path | None] = ()) -> str:
    """Make sure that a file can be written, before what it is to hold is worked out.

    Args:
        path: to write.
        suffixes: of the formats that it may have; None for any.
        inputs: files that it is made of.

    Returns:
        its suffix of those.

    Raises:
        ValueError: for another suffix, or when it is one of the inputs, which would be lost.
        OSError: when it can't be written.
    """
    target, suffix = Path(path), "" if suffixes is None else known_suffix(path, suffixes)
    if any(given is not None and _same(target, Path(given)) for given in inputs):
        raise ValueError(f"{path}: is an input, which would be overwritten; name another file.")
    if target.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; name a file in it.")
    require_folder(target.parent)
    return suffix


def require_folder(folder: str | Path) -> None:
    """Make sure that files can be written to a folder that may not exist yet.

    Raises:
        OSError: when they can't.
    """
    require_outside(folder)
    there = next(path for path in (Path(folder), *Path(folder).absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{folder}: can't be made, {there} is a file; name another folder.")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise type(error)(f"{folder}: can't be written ({error.strerror}); check its rights and space.") from error


@contextmanager
def result_folder(folder: str | Path, inputs: Iterable[str | Path]) -> Iterator[Path]:
    """A folder beside ``folder`` to write a registration to, whose files move there at the end, ``metrics.json`` last.

    When the body fails, all is as it was. What an earlier result lists in its ``metrics.json`` as its files and the new
    one has not is removed, since it would be taken for the new one's; anything else stays.

    Args:
        folder: of the result, made where it isn't there.
        inputs: files that it is made of.

    Raises:
        ValueError: when one of the inputs would be overwritten or removed.
        OSError: when the folder can't be written.
    """
    target = Path(folder)
    for given in map(Path, inputs):
        named = FRAME.fullmatch(given.name) and _same(target, given.parent)
        own = [*(target / name for name in (*RESULT, SERIES)), *([target / SERIES / given.name] if given.name else [])]
        if named or any(_same(file, given) for file in own):
            raise ValueError(f"output_dir: {given} is an input, which would be overwritten; name another folder.")
    require_folder(target)
    with writing(target), partial_folder(target) as partial:
        yield partial
        written = set(files_of(partial))
        if any(SLICE.fullmatch(name) for name in written):
            require_series_folder(target)
            (target / SERIES).mkdir(parents=True, exist_ok=True)
        target.mkdir(exist_ok=True)
        last, before = target / METRICS, target / f".{METRICS}"
        if last.exists():  # from here until the end the folder holds no result
            os.replace(last, before)
        for name in sorted(written - {METRICS}):
            os.replace(partial / name, target / name)
        linked = not (target / SERIES).is_dir() or (target / SERIES).is_symlink()
        for name in _files(before) - written:
            if not (linked and SLICE.fullmatch(name)):  # which would lie elsewhere
                (target / name).unlink(missing_ok=True)
        with suppress(OSError):  # of one that isn't there, or holds something else
            (target / SERIES).rmdir()
        os.replace(partial / METRICS, last)
        before.unlink(missing_ok=True)


@contextmanager
def new_files(folder: str | Path, last: str | None = None) -> Iterator[Path]:
    """A folder to write the files of a data set to, which move to ``folder`` at the end.

    When the body fails, all is as it was.

    Args:
        folder: made where it isn't there.
        last: file that moves after all others, for they are complete where it is.

    Raises:
        OSError: when the folder can't be written.
    """
    target = Path(folder)
    require_folder(target)
    with writing(target), partial_folder(target) as partial:
        yield partial
        files = sorted(file.relative_to(partial) for file in partial.rglob("*") if file.is_file())
        for file in sorted(files, key=lambda file: file.name == last):
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial / file, target / file)


def files_of(folder: Path) -> list[str]:
    """Names of the files in a folder and its folders, relative to it."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def require_series_folder(result: str | Path) -> None:
    """Raise OSError where a result's DICOM series would be written to another place than below it."""
    folder = Path(result) / SERIES
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise NotADirectoryError(f"{folder}: is a file or a link, where a folder is to be; move it away.")


def _files(metrics: Path) -> set[str]:
    """What a ``metrics.json`` lists as its result's files; one of a version that didn't has all that it may have."""
    try:
        content = json.loads(metrics.read_text())
        return {
            name
            for name in content.get("files", RESULT)
            if name in RESULT or SLICE.fullmatch(name) or FRAME.fullmatch(name)
        }
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return set()


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)
