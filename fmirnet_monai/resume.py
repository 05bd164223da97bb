"""Whether a result is there already: by one key of the files it was made from and of how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmirnet_monai.utils import digest, read_object
from fmirnet_monai.version import __version__

KEY = "key"


def files_in(given: Mapping[str, Any]) -> list[str]:
    """The files of a case, whose options hold one or several each."""
    return [str(file) for value in given.values() for file in (value if isinstance(value, list) else [value])]


def result_key(given: Mapping[str, Any], sha256: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    """SHA-256 of all that a result depends on; a case that has it needs not be done again.

    Args:
        given: files by option, one or a list.
        sha256: of each file, which counts in place of its name.
        settings: how, as JSON.
    """
    contents = {option: [sha256[file] for file in files_in({option: value})] for option, value in given.items()}
    whole = {"inputs": contents, "settings": settings, "version": __version__}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def is_done(record: Path, given: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a JSON file tells of a result of the same key whose ``files``, beside it, are all there."""
    try:
        content = read_object(record)
        there = all((record.parent / name).is_file() for name in content["files"])
        return there and content[KEY] == result_key(given, {file: digest(file) for file in files_in(given)}, settings)
    except (OSError, ValueError, KeyError, TypeError):
        return False
