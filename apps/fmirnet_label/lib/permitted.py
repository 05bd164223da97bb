"""What a request may name: the server's studies, and what came with it; no other file of the server's disk."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore


def own_uploads() -> Path:
    """A folder of this process's own, which MONAI Label stores uploads in from now on, until the process ends."""
    folder = tempfile.mkdtemp(prefix="fmirnet_label_")  # for its user alone
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tempfile.tempdir = folder
    return Path(folder)


def require_upload(name: str, value: Any, given: Sequence[Path]) -> None:
    """Answer with 400 where a file is none that a request brought.

    Args:
        name: of the option.
        value: as it stands in the request.
        given: folders of what requests bring: uploads and sessions.
    """
    if isinstance(value, str) and not any(folder.resolve() in Path(value).resolve().parents for folder in given):
        raise HTTPException(400, f"{name}: {value!r} is no study of this server; name one, or upload the file.")


def refuse_files(request: Mapping[str, Any]) -> None:
    """Answer with 400 where an option names a file of the server's disk."""
    for name, value in request.items():
        for text in _texts(value):
            if os.sep in text and Path(text).expanduser().exists():
                raise HTTPException(400, f"{name}: {text!r} is a file of the server; name one of its studies.")


def guard_names(datastore: Datastore) -> Datastore:
    """The same studies, which answer with 400 where a new image's or label's name would lead out of their folder."""
    for method in ("add_image", "save_label"):
        setattr(datastore, method, _guarded(getattr(datastore, method)))
    return datastore


def _guarded(store: Callable[..., str]) -> Callable[..., str]:
    @wraps(store)
    def guarded(image_id: str, file: str, *more: Any) -> str:
        for name, value in (("image", image_id), ("tag", more[0])):
            if isinstance(value, str) and (value.startswith(".") or any(sign in value for sign in "/\\\0")):
                raise HTTPException(400, f"{name}: {value!r} is no name; give one without '/' that begins with no '.'.")
        return store(image_id, file, *more)

    return guarded


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)
