"""Completion of commands, options and files in a shell."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import shtab
from fire.docstrings import parse

from fmirnet_monai.errors import PROGRAM

SHELLS = tuple(shtab.SUPPORTED_SHELLS)


def completion_script(commands: Mapping[str, Any], shell: str) -> str:
    """What a shell is to run, that it completes the commands.

    Args:
        commands: by name, groups as such a mapping in turn, with what the group alone does under "".
        shell: of :py:data:`SHELLS`.

    Raises:
        ValueError: for another one.
    """
    if shell not in SHELLS:
        raise ValueError(f"shell must be {', '.join(SHELLS)}, got {shell!r}.")
    parser = argparse.ArgumentParser(PROGRAM)
    parser.add_argument("--version", action="store_true", help="print the version")
    _add_group(parser, commands)
    return shtab.complete(parser, shell)


def _add_group(parser: argparse.ArgumentParser, commands: Mapping[str, Any]) -> None:
    names = parser.add_subparsers()
    for name, command in commands.items():
        whole = command.get("") if isinstance(command, Mapping) else command
        if name:
            inner = names.add_parser(name, help=_summary(whole) if whole else f"{name} …")
            if whole:
                _add_options(inner, whole)
            if isinstance(command, Mapping):
                _add_group(inner, command)


def _add_options(parser: argparse.ArgumentParser, command: Callable) -> None:
    told = {arg.name: " ".join(arg.description.split()) for arg in parse(inspect.getdoc(command)).args or ()}
    for name, parameter in inspect.signature(command).parameters.items():
        flag = f"--{name}" if parameter.kind is parameter.KEYWORD_ONLY else name
        option = parser.add_argument(flag, help=told.get(name, "").replace("%", "%%"))
        if "bool" in str(parameter.annotation):
            option.choices = ("true", "false")
        elif "str" in str(parameter.annotation):
            option.complete = shtab.FILE  # type: ignore[attr-defined]


def _summary(command: Callable) -> str:
    return (inspect.getdoc(command) or "").split("\n", 1)[0].replace("%", "%%")
