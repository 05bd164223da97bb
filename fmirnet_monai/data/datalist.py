"""The datalist: MONAI's JSON form, sections of pairs with paths relative to the file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fmirnet_monai.utils import read_object, write_text

from .images import read_label
from .pairing import SECTIONS, Pair

PATH_KEYS = (
    *("moving", "fixed", "moving_label", "fixed_label", "moving_points", "fixed_points"),
    *("moving_mask", "fixed_mask", "moving_channels", "fixed_channels"),  # the channels are lists of paths
)
VOLUMES, VOLUME_KEYS = "volumes", ("image", "label")
MANY = 100  # files, from which on reading them takes seconds


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
            f"{path}: the section {section!r} is empty; prepare more subjects, or give the section more of them with "
            "--fractions or --sections."
        )
    located = []
    for pair in pairs:
        if "moving" not in pair or "fixed" not in pair:
            raise ValueError(f"{path}: a pair of {section!r} lacks 'moving' or 'fixed': {pair}.")
        located.append(_located(pair, PATH_KEYS, path, must_exist))
    return located


def has_labels(datalist: str | Path, section: str) -> bool:
    """Whether the pairs of a section have labels, all of them or none.

    Args:
        datalist: JSON file of pairs.
        section: ``"training"``, ``"validation"`` or ``"test"``.

    Raises:
        FileNotFoundError: see :py:func:`load_pairs`.
        ValueError: see :py:func:`load_pairs`; or when some pairs have both labels and others don't.
    """
    pairs = load_pairs(datalist, section)
    labelled = [{"moving_label", "fixed_label"} <= set(pair) for pair in pairs]
    if any(labelled) and not all(labelled):
        bare = pairs[labelled.index(False)]
        raise ValueError(
            f"{datalist}: {sum(labelled)} of {len(pairs)} pairs of {section!r} have labels, that of {bare['moving']} "
            "does not; measure labelled and unlabelled pairs by a datalist each."
        )
    return any(labelled)


def count_classes(*datalists: str | Path) -> int:
    """How many classes the labels of datalists have: one more than the largest number in any of their label maps.

    Args:
        datalists: JSON files of pairs.

    Returns:
        at least 2, the background among them.

    Raises:
        FileNotFoundError: when a datalist, or a file it names, does not exist.
        ValueError: when a label map can't be read, or has a number above 255.
    """
    files: set[Path] = set()
    for datalist in map(Path, datalists):
        content = read_datalist(datalist)
        pairs = [pair for section in SECTIONS for pair in content.get(section, [])]
        pairs += [volume for volumes in content.get(VOLUMES, {}).values() for volume in volumes]
        keys = ("moving_label", "fixed_label", "label")
        files |= {datalist.parent / pair[key] for pair in pairs for key in keys if key in pair}
    largest = 1
    for file in tqdm(sorted(files), "labels", unit="file", leave=False, disable=len(files) < MANY):
        largest = max(largest, int(read_label(file, track_meta=False, empty=True).max()))
        if largest > 255:
            raise ValueError(f"{file}: has the label {largest}; renumber labels, see 'prepare folder --label_numbers'.")
    return largest + 1


def check_classes(num_classes: int, *datalists: str | Path) -> None:
    """Raise ValueError when datalists have labels that a network of so many classes doesn't know, as it would later."""
    if (needed := count_classes(*datalists)) > num_classes:
        raise ValueError(
            f"num_classes: {datalists[0]} has labels up to {needed - 1}; give --num_classes {needed}, or prepare the "
            "data with fewer labels."
        )


def load_slices(datalist: str | Path, section: str, annotated_only: bool = False) -> list[Pair]:
    """Single images with their labels, each image of the section's pairs once.

    Args:
        datalist: JSON file of pairs.
        section: ``"training"``, ``"validation"`` or ``"test"``.
        annotated_only: only the moving images, which stand for those that a person has labelled.

    Returns:
        items ``{"image", "label", "subject"}`` with absolute paths.

    Raises:
        FileNotFoundError: see :py:func:`load_pairs`.
        ValueError: see :py:func:`load_pairs`; or when a pair has no label.
    """
    items: dict[str, Pair] = {}
    for pair in load_pairs(datalist, section):
        for side in ("moving", "fixed")[: 1 if annotated_only else 2]:
            if f"{side}_label" not in pair:
                raise ValueError(f"{datalist}: a pair of {section!r} has no {side}_label, which segmentation needs.")
            label = pair[f"{side}_label"]
            items[pair[side]] = {"image": pair[side], "label": label, "subject": pair.get("subject", "")}
    return list(items.values())


def load_volumes(datalist: str | Path, section: str, labelled: bool = True) -> list[Pair]:
    """Whole volumes of a section, which ``prepare`` writes with ``--volumes``.

    Args:
        datalist: JSON file with the entry ``volumes``, sections of items ``{"image", "label"?, "subject"}``.
        section: ``"training"``, ``"validation"`` or ``"test"``.
        labelled: each must have a label.

    Returns:
        the items with absolute paths.

    Raises:
        FileNotFoundError: when the datalist, or a file it names, does not exist.
        ValueError: when it has no such volumes, or one has no label.
    """
    path = Path(datalist).absolute()
    volumes = read_datalist(path).get(VOLUMES, {}).get(section, [])
    if not volumes:
        raise ValueError(f"{path}: has no volumes in the section {section!r}; prepare the data with --volumes.")
    located = []
    for volume in volumes:
        if lacking := [key for key in ("image", "label")[: 2 if labelled else 1] if key not in volume]:
            raise ValueError(f"{path}: the volume of {volume.get('subject', 'no subject')} has no {lacking[0]}.")
        located.append(_located(volume, VOLUME_KEYS, path))
    return located


def load_labelled(datalist: str | Path, section: str) -> list[Pair]:
    """Images of one section with a label each, ``{"image", "label"}``, paths absolute; the files may be absent.

    Raises:
        FileNotFoundError: when the datalist does not exist.
        ValueError: when it is not JSON of that form, or the section is missing or empty.
    """
    path = Path(datalist).absolute()
    content = read_datalist(path)
    _check_items(content, VOLUME_KEYS, path)
    items = content.get(section)
    if not items:
        raise ValueError(f"{path}: the section {section!r} is empty; list items with 'image' and 'label' there.")
    if lacking := [item for item in items if not all(isinstance(item.get(key), str) for key in VOLUME_KEYS)]:
        raise ValueError(f"{path}: an item of {section!r} lacks 'image' or 'label': {lacking[0]}.")
    return [_located(item, VOLUME_KEYS, path, must_exist=False) for item in items]


def common_folder(items: Sequence[Pair], key: str = "fixed") -> str:
    """The folder that holds the images ``key`` of all items, the root of the folders that results are saved in."""
    return os.path.dirname(os.path.commonpath([os.path.abspath(item[key]) for item in items]))


def saving_root(datalist: str | Path, section: str, images: Sequence[str] | None = None) -> str:
    """The folder that results of volumes are named after: it holds the images given, or else those of the datalist.

    Where there is neither, as in a program that only asks for a bundle's transforms, it is the datalist's folder.
    """
    if images:
        return common_folder([{"image": path} for path in images], "image")
    if not Path(datalist).is_file():
        return str(Path(datalist).parent)
    return common_folder(load_volumes(datalist, section, labelled=False), "image")


def read_datalist(path: Path) -> dict[str, Any]:
    """The JSON object of a datalist file, paths as they stand in it."""
    if not path.is_file():
        raise FileNotFoundError(f"no such datalist: {path}; make one with 'fmirnet prepare', see its --help.")
    content = read_object(path, f"an object with the sections {SECTIONS}")
    _check_items(content, PATH_KEYS, path)
    if VOLUMES in content:
        if not isinstance(content[VOLUMES], dict):
            raise ValueError(f"{path}: {VOLUMES!r} must be an object of sections, got {content[VOLUMES]!r}.")
        _check_items(content[VOLUMES], (*VOLUME_KEYS, "subject"), path)
    return content


def _check_items(sections: Mapping[str, Any], keys: Sequence[str], path: Path) -> None:
    """Raise ValueError naming the datalist when a section is no list of objects, or a file of one no text or list."""
    for section in SECTIONS:
        items = sections.get(section, [])
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise ValueError(f"{path}: the section {section!r} must be a list of objects, got {items!r}.")
        for item in items:
            for key in keys:
                value = item.get(key, "")
                if not all(isinstance(text, str) for text in (value if isinstance(value, list) else [value])):
                    raise ValueError(f"{path}: {key!r} in {section!r} must be a path in quotes, got {value!r}.")


def check_sections(datalist: str | Path, sections: Mapping[str, str]) -> None:
    """Raise ValueError when a subject of a datalist stands in another section than in ``sections``."""
    path = Path(datalist)
    content = read_datalist(path)
    for section in SECTIONS:
        for pair in content.get(section, []):
            for subject in _subjects(pair):
                if sections.get(subject) != section:
                    raise ValueError(
                        f"{path}: subject {subject} is in {section!r} here and in {sections.get(subject, 'none')!r} "
                        f"of the list of sections; remove {path.parent} to prepare it again."
                    )


def write_datalist(path: Path, sections: dict[str, list[Pair]], /, **properties: Any) -> None:
    """Write a datalist whole or not at all; ``properties`` stand before the sections."""
    counts = {f"num_{section}": len(sections[section]) for section in SECTIONS}
    write_text(path, json.dumps({**properties, **counts, **sections}, indent=1) + "\n")


def merge_datalists(
    datalists: Sequence[str | Path],
    output: str | Path,
    names: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
) -> Path:
    """Join datalists section by section, so that each subject stays where its own datalist had it.

    What else than files and subject a pair has, such as its ``slice``, stays where all pairs have it: items of one
    batch must have the same keys.

    Args:
        datalists: two or more datalist files.
        output: the file to write; paths in it are relative to its folder.
        names: one for each, put before the names of its subjects, so that 01 of one and 01 of another are two people.
        weights: how often training draws from each, one for each; its training pairs share it, see
            :py:func:`fmirnet_monai.data.pair_sampler`. By default all pairs are drawn alike.

    Returns:
        ``output``.

    Raises:
        FileExistsError: when ``output`` exists.
        ValueError: when one subject stands in different sections, or there are fewer or more names or weights than
            datalists.
    """
    for option, values in (("names", names), ("weights", weights)):
        if values is not None and len(values) != len(datalists):
            raise ValueError(f"{option}: give one for each of the {len(datalists)} datalists, got {len(values)}.")
    if weights is not None and min(weights) < 0:
        raise ValueError(f"weights must be at least 0, got {list(weights)}.")
    target = Path(output)
    if target.exists():
        raise FileExistsError(f"output: {target} exists; give another name or remove it.")
    sections: dict[str, list[Pair]] = {section: [] for section in SECTIONS}
    volumes: dict[str, list[Pair]] = {section: [] for section in SECTIONS}
    section_of: dict[str, str] = {}
    merged = [Path(datalist) for datalist in datalists]
    for number, path in enumerate(merged):
        content = read_datalist(path)
        for section in SECTIONS:
            for pair in content.get(section, []):
                if names is not None and "subject" in pair:
                    pair["subject"] = _each(f"{names[number]}_{{}}".format, pair["subject"])
                if weights is not None and section == "training":
                    pair["weight"] = weights[number] / len(content[section])
                for subject in _subjects(pair):
                    if section_of.setdefault(subject, section) != section:
                        raise ValueError(
                            f"{path}: subject {subject} is in {section!r} here and in {section_of[subject]!r} "
                            "elsewhere; prepare all with one --sections, or with --split subject and the same --seed."
                        )
                sections[section].append(_moved(pair, PATH_KEYS, path.parent, target.parent))
            for volume in content.get(VOLUMES, {}).get(section, []):
                if names is not None and "subject" in volume:
                    volume["subject"] = f"{names[number]}_{volume['subject']}"
                volumes[section].append(_moved(volume, VOLUME_KEYS, path.parent, target.parent))
    pairs = [pair for section in sections.values() for pair in section]
    for key in {key for pair in pairs for key in pair} - {*PATH_KEYS, "subject", "weight"}:
        if not all(key in pair for pair in pairs):
            for pair in pairs:
                pair.pop(key, None)
    sources = [os.path.relpath(path, target.parent) for path in merged]
    extra = {VOLUMES: volumes} if any(volumes.values()) else {}
    write_datalist(target, sections, name="merged", sources=sources, **extra)
    return target


def _subjects(pair: Pair) -> list[str]:
    """Names of the subjects of a pair, one or both."""
    names = pair.get("subject", [])
    return [str(name) for name in (names if isinstance(names, list) else [names])]


def _located(item: Pair, keys: Sequence[str], datalist: Path, must_exist: bool = True) -> Pair:
    """The item with absolute paths; FileNotFoundError for a file that has to be there and is not."""
    files = {key: _each(lambda path: str(datalist.parent / path), item[key]) for key in keys if key in item}
    for value in files.values():
        for file in [value] if isinstance(value, str) else value:
            if must_exist and not Path(file).exists():
                raise FileNotFoundError(
                    f"{datalist}: names a file that does not exist: {file}; prepare the data again."
                )
    return {**item, **files}


def _moved(item: Pair, keys: Sequence[str], old: Path, new: Path) -> Pair:
    """The item with paths relative to another folder."""
    files = {key: _each(lambda path: os.path.relpath(old / path, new), item[key]) for key in keys if key in item}
    return {**item, **files}


def _each(change: Callable[[str], str], value: Any) -> Any:
    """One path changed, or each of a list."""
    return [change(path) for path in value] if isinstance(value, list) else change(value)
