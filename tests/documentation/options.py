"""Whether the commands of a block exist and take the options that they are given, found without running them."""

from __future__ import annotations

import ast
import configparser
import functools
import inspect
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import fire

from fmirnet_monai import cli

from .blocks import REPOSITORY, Block, bundle_words, command_lines, own_words

PLAIN = (
    "mkdir",
    "ls",
    "cp",
    "cd",
    "cat",
    "echo",
    "export",
    "source",
    "curl",
    "git",
    "tar",
    "apptainer",
    "docker",
    "tensorboard",
)
FILE = re.compile(r"[\w./-]+\.(?:json|py|txt)")
SETUP = configparser.ConfigParser()
SETUP.read(REPOSITORY / "setup.cfg")
EXTRAS = set(SETUP["options.extras_require"])
TARGETS = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def check_commands(block: Block, copies: Mapping[str, Path]) -> None:
    """Check each line of a shell block.

    Args:
        block: of the language bash.
        copies: bundles that the page has put elsewhere, by the folder.

    Raises:
        ValueError: or SystemExit, for a line that would be refused.
    """
    for words in command_lines(block.text):
        _check_line(words, block, copies)


def copied_bundles(words: list[str]) -> dict[str, Path]:
    """Where ``bundle copy`` puts what, as :py:func:`check_commands` wants it."""
    own = own_words(words) or []
    if own[:2] != ["bundle", "copy"]:
        return {}
    target = own[own.index("--output_dir") + 1]
    return {f"{target}/{own[2]}": REPOSITORY / "bundles" / own[2]}


def _check_line(words: list[str], block: Block, copies: Mapping[str, Path]) -> None:
    own, bundle = own_words(words), bundle_words(words)
    if words[0] in ("docker", "apptainer") and words[1] == "run":  # what follows the image's name
        own = next((words[i:] for i, word in enumerate(words) if i > 2 and word in cli.COMMANDS), own)
    if own is not None:
        check_own(own)
    elif bundle is not None:
        _check_bundle(bundle, block, copies)
    elif words[0] == "make":
        _require({word for word in words[1:] if "=" not in word and not word.startswith("-")} <= TARGETS, words)
    elif words[0] == "pip":
        wanted = {name for word in words for found in re.findall(r"\[([\w,]+)\]", word) for name in found.split(",")}
        own_ones = any(re.search(r"(^\.|fmirnet|\.whl)", word) for word in words)
        _require(not own_ones or wanted <= EXTRAS, words, f"extras {wanted - EXTRAS} are not in setup.cfg")
    elif words[0] in ("python", "python3", "pytest") or words[0].endswith("/python"):
        files = [word for word in words if FILE.fullmatch(word) and "/" in word and word.endswith(".py")]
        _require(all((REPOSITORY / file).is_file() for file in files), words)
    elif words[0] == "dask":
        _check_dask(words)
    elif words[0] not in PLAIN:
        raise ValueError(f"{block.place}: nothing is known about {words[0]!r} of {shlex.join(words)}")


def _check_dask(words: list[str]) -> None:
    """A scheduler or a worker has the options that it is given; of dask-cuda, which needs a GPU, nothing is known."""
    from distributed.cli import dask_scheduler, dask_worker

    kinds = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}
    if words[1:3] == ["cuda", "worker"]:
        return
    _require(len(words) > 1 and words[1] in kinds, words, "no such command of dask")
    try:
        kinds[words[1]].make_context(words[1], words[2:])
    except click.UsageError as error:
        raise ValueError(f"{shlex.join(words)}: {error.format_message()}") from error


def _require(holds: bool, words: list[str], why: str = "no such target or file") -> None:
    if not holds:
        raise ValueError(f"{shlex.join(words)}: {why}")


def check_own(words: list[str]) -> None:
    """Read the words of one of this package's commands as its program does, types and all, and stop there."""
    if words[:1] in (["--version"], ["--help"]):
        return
    command, name, options = cli._find_command(words)
    if "--help" in options or "-h" in options:
        return
    if isinstance(command, dict):
        raise ValueError(f"{' '.join(name)} is a group of commands; name one.")
    fire.Fire(cli._check_types(_idle(command)), command=cli._checked_words(command, options), name=name[-1])


def _idle(command: Callable) -> Callable:
    """A command that takes what the given one takes and does nothing."""

    @functools.wraps(command)
    def idle(*args: Any, **kwargs: Any) -> None:
        inspect.signature(command).bind(*args, **kwargs)

    return idle


def _check_bundle(words: list[str], block: Block, copies: Mapping[str, Path]) -> None:
    """A line of ``python -m monai.bundle``: its configs are there, and so is each key that is laid over them."""
    from monai import bundle

    name, given = words[0], dict(zip(words[1::2], words[2::2], strict=True))
    if strange := [option for option in given if not option.startswith("--")]:
        raise ValueError(f"{block.place}: unexpected word {strange[0]!r} of monai.bundle")
    known = set(inspect.signature(getattr(bundle, name)).parameters) - {"override"}
    files = given.get("--config_file", "[]")
    listed = ast.literal_eval(files) if files.startswith("[") else [files]
    configs = [_find(file, block, copies) for file in listed]
    if (meta := given.get("--meta_file")) is not None:
        _find(meta, block, copies)
    content = bundle.ConfigParser.load_config_files([str(file) for file in configs])
    for option in given:
        if (key := option.removeprefix("--")) not in known and not _has(content, key.replace("::", "#").split("#")):
            raise ValueError(f"{block.place}: {key} is no key of {files}")


def _find(file: str, block: Block, copies: Mapping[str, Path]) -> Path:
    places = [REPOSITORY / file, block.page.parents[1] / file]
    places += [home / Path(file).relative_to(copy) for copy, home in copies.items() if Path(file).is_relative_to(copy)]
    for place in places:
        if place.is_file():
            return place
    raise ValueError(f"{block.place}: no such config: {file}")


def _has(content: Any, keys: list[str]) -> bool:
    """Whether a config has a key; where named things are collected, as the terms of a loss, it may be new."""
    for depth, key in enumerate(keys):
        if isinstance(content, list) and key.isdigit() and int(key) < len(content):
            content = content[int(key)]
        elif isinstance(content, dict) and key in content:
            content = content[key]
        else:
            return 0 < depth == len(keys) - 1 and isinstance(content, dict) and "_target_" not in content
    return True
