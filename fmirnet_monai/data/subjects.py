"""Which subjects of a data set are for training, for validation and for test.

``subjects.json`` lists them once for the sets that this repository trains and measures on. The bundles' pages and the
studies in ``benchmarks`` take them from there by ``prepare --sections NAME``; the entry ``trained_on`` of a bundle's
``metadata.json`` names the sets whose training subjects its weights learnt from, and whose validation subjects chose
among them. A subject keeps its section as long as there are weights that have seen it there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fmirnet_monai.utils import read_json

from .pairing import SECTIONS

KNOWN = Path(__file__).with_name("subjects.json")


def read_sections(source: str | Path) -> dict[str, str]:
    """The section of each subject.

    Args:
        source: name of a set in ``subjects.json``, such as ``"btcv"``, or a JSON file of the form ``{"training": […],
            "validation": […], "test": […]}`` with the names of the subjects as texts; a section may be left out.

    Returns:
        ``"training"``, ``"validation"`` or ``"test"`` by subject, in the order of the list.

    Raises:
        FileNotFoundError: when it is neither a known set nor a file.
        ValueError: when the file is not of that form, or names a subject twice.
    """
    known = json.loads(KNOWN.read_text())
    if str(source) in known:
        return _section_of(known[str(source)], KNOWN)
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"sections: {source} is no file, and none of the known sets {', '.join(known)}.")
    return _section_of(read_json(path), path)


def _section_of(content: Any, path: Path) -> dict[str, str]:
    """Section by subject from the lists of subjects by section, which are checked."""
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: expected an object with lists of subjects under {', '.join(SECTIONS)}.")
    section_of: dict[str, str] = {}
    for section, subjects in content.items():
        if section not in SECTIONS:
            raise ValueError(f"{path}: unknown section {section!r}; there are {', '.join(SECTIONS)}.")
        if not isinstance(subjects, list) or not all(isinstance(subject, str) for subject in subjects):
            raise ValueError(f'{path}: {section} must be a list of names in quotes, such as ["01", "02"].')
        for subject in subjects:
            if subject in section_of:
                raise ValueError(f"{path}: names subject {subject} twice, in {section_of[subject]} and in {section}.")
            section_of[subject] = section
    return section_of
