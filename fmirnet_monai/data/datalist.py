"""The datalist: MONAI's JSON form, sections of pairs with paths relative to the file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmirnet_monai.utils import write_text

from .pairing import SECTIONS, Pair

PATH_KEYS = ("moving", "fixed", "moving_label", "fixed_label", "moving_points", "fixed_points")


def load_pairs(datalist: str | Path, section: str, must_exist: bool = True) -> list[Pair]:
    """Pairs of one section with absolute paths.

    Args:
        datalist: JSON file of sections; an item is ``{"moving", "fixed", "moving_label"?, "fixed_label"?, …}``.
        section: ``"training"``, ``"validation"`` or ``"test"``.
        must_exist: check that each file is there.

    Raises:
        FileNotFoundError: when the datalist, or with ``must_exist`` a file it names, does not exist.
        ValueError: when it is not JSON of that form, or the section is missing or empty.
    """
    path = Path(datalist).absolute()
    pairs = read_datalist(path).get(section)
    if not pairs:
        raise ValueError(
            f"{path}: the section {section!r} is empty; prepare more subjects, or give the section a larger share "
            "with --fractions."
        )
    located = []
    for pair in pairs:
        if "moving" not in pair or "fixed" not in pair:
            raise ValueError(f"{path}: a pair of {section!r} lacks 'moving' or 'fixed': {pair}.")
        files = {key: str(path.parent / pair[key]) for key in PATH_KEYS if key in pair}
        for file in files.values():
            if must_exist and not Path(file).exists():
                raise FileNotFoundError(f"{path}: names a file that does not exist: {file}; prepare the data again.")
        located.append({**pair, **files})
    return located


def common_folder(pairs: Sequence[Pair]) -> str:
    """The folder that holds all fixed images, the root of the folders that results are saved in."""
    return os.path.dirname(os.path.commonpath([os.path.abspath(pair["fixed"]) for pair in pairs]))


def read_datalist(path: Path) -> dict[str, Any]:
    """The JSON object of a datalist file, paths as they stand in it."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no such datalist: {path}; make one with 'python -m fmirnet_monai prepare', see its --help."
        )
    try:
        content = json.loads(path.read_text())
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError
        raise ValueError(f"{path}: not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object with the sections {SECTIONS}, got {type(content).__name__}.")
    return content


def write_datalist(path: Path, sections: dict[str, list[Pair]], **properties: Any) -> None:
    """Write a datalist whole or not at all; ``properties`` stand before the sections."""
    counts = {f"num_{section}": len(sections[section]) for section in SECTIONS}
    write_text(path, json.dumps({**properties, **counts, **sections}, indent=1) + "\n")


def merge_datalists(datalists: Sequence[str | Path], output: str | Path) -> Path:
    """Join datalists section by section, so that each subject stays where its own datalist had it.

    Args:
        datalists: two or more datalist files.
        output: the file to write; paths in it are relative to its folder.

    Returns:
        ``output``.

    Raises:
        FileExistsError: when ``output`` exists.
        ValueError: when one subject stands in different sections.
    """
    target = Path(output)
    if target.exists():
        raise FileExistsError(f"output: {target} exists; give another name or remove it.")
    sections: dict[str, list[Pair]] = {section: [] for section in SECTIONS}
    section_of: dict[str, str] = {}
    merged = [Path(datalist) for datalist in datalists]
    for path in merged:
        content = read_datalist(path)
        for section in SECTIONS:
            for pair in content.get(section, []):
                names = pair.get("subject", [])
                for subject in names if isinstance(names, list) else [names]:
                    if section_of.setdefault(str(subject), section) != section:
                        raise ValueError(
                            f"{path}: subject {subject} is in {section!r} here and in {section_of[str(subject)]!r} "
                            "elsewhere; prepare all with --split subject and the same --seed."
                        )
                moved = {k: os.path.relpath(path.parent / pair[k], target.parent) for k in PATH_KEYS if k in pair}
                sections[section].append({**pair, **moved})
    write_datalist(target, sections, name="merged", sources=[os.path.relpath(p, target.parent) for p in merged])
    return target
