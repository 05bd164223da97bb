"""A page for each room of the package, from the docstrings of what it exports."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module

ROOMS = (
    *("registration", "spatial", "data", "transforms", "networks", "losses", "metrics", "engines"),
    *("baselines", "report", "study", "bundle", "zoo"),
)
ROOM = "{members: false, show_root_heading: false, show_root_toc_entry: false}"


def exported(room: str) -> list[str]:
    """The public names of a room, in the order that it lists them."""
    module = import_module(f"fmirnet_monai.{room}")
    return list(getattr(module, "__all__", None) or _functions(module.__file__))


def _functions(file: str | None) -> list[str]:
    """Public functions and classes that a module without a list defines."""
    with open(str(file), encoding="utf-8") as source:
        body = ast.parse(source.read()).body
    return [n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]


def pages() -> dict[str, str]:
    """The pages by their places in the site."""
    return {f"reference/{room}.md": _page(room) for room in ROOMS}


def _page(room: str) -> str:
    path = f"fmirnet_monai.{room}"
    entries = "".join(_entry(path, name) for name in exported(room))
    return f"# {path}\n\n::: {path}\n    options: {ROOM}\n{entries}"


def _entry(path: str, name: str) -> str:
    """A class or a function from its docstring, a constant as its value."""
    value = getattr(import_module(path), name)
    if inspect.isroutine(value) or inspect.isclass(value):
        return f"\n::: {path}.{name}\n"
    shown = ", ".join(map(str, value)) if isinstance(value, tuple | list | dict | frozenset) else str(value)
    return f'\n## <span id="{path}.{name}">{name}</span> {{ #{name} }}\n\n`{shown}`\n'
