"""The page of all commands, from their own signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import griffe

from fmirnet_monai import cli

HEAD = """# Commands

`fmirnet` and `python -m fmirnet_monai` are the same. `fmirnet COMMAND --help` tells what stands here. An option is
written `--name value`; one of several values takes them separated by commas.

"""


def leaves(commands: Mapping[str, Any] = cli.COMMANDS, words: tuple[str, ...] = ()) -> dict[str, Callable]:
    """Every command by the words that call it."""
    found: dict[str, Callable] = {}
    for word, command in commands.items():
        name = (*words, word) if word != cli.OWN else words
        found |= leaves(command, name) if isinstance(command, dict) else {" ".join(name): command}
    return found


def pages() -> dict[str, str]:
    """The page by its place in the site."""
    listed = "".join(_section(name, command) for name, command in leaves().items())
    return {"reference/commands.md": HEAD + listed}


def _section(name: str, command: Callable) -> str:
    parts = griffe.Docstring(inspect.getdoc(command) or "", lineno=1).parse("google", warnings=False)
    text = "\n\n".join(_plain(part.value) for part in parts if part.kind is griffe.DocstringSectionKind.text)
    meanings = {
        item.name: _plain(item.description)
        for part in parts
        if part.kind is griffe.DocstringSectionKind.parameters
        for item in part.value
    }
    hints = get_type_hints(command)
    rows = [
        f"| {_option(p)} | {cli._Words(hints[p.name])!r} | {_default(p.default)} | {meanings[p.name]} |"
        for p in inspect.signature(command).parameters.values()
    ]
    table = ["| option | type | default | |", "|---|---|---|---|", *rows]
    return f"## fmirnet {name} {{ #{name.replace(' ', '-')} }}\n\n{text}\n\n" + "\n".join(table) + "\n\n"


def _option(parameter: inspect.Parameter) -> str:
    return f"`--{parameter.name}`" if parameter.kind is parameter.KEYWORD_ONLY else f"`{parameter.name.upper()}`"


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "required"
    if value is None or value in ("", ()):
        return "–"
    words = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"`{words.lower() if isinstance(value, bool) else words}`"


def _plain(text: str) -> str:
    """Text on one line a paragraph, with what Markdown would take for its own."""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    return "\n\n".join(re.sub(r"([*_<>|\[\]])", r"\\\1", part) for part in paragraphs)
