"""Whether what a Python block imports exists and takes the arguments that it is given, found without running it."""

from __future__ import annotations

import ast
import inspect
from typing import Any, get_type_hints


def check_code(text: str, names: dict[str, Any], place: str) -> None:
    """Compile a block, run its imports alone, and bind the arguments of each call that can be told.

    Args:
        text: the block.
        names: what earlier blocks of the page made known; that of this one is added. A name that was assigned stands
            for an object of its class.
        place: for messages.

    Raises:
        SyntaxError: for what is no Python.
        ImportError: for what can't be imported.
        ValueError: for an attribute that isn't there, or arguments that don't fit.
    """
    tree = ast.parse(text, place)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(compile(ast.Module([node], []), place, "exec"), names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            _check_call(node, names, place)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names[node.targets[0].id] = _Instance(_made(node.value, names, place))


class _Instance:
    """An object that was not made, of a class that is known, or of None."""

    def __init__(self, of: type | None) -> None:
        self.of = of


def _look_up(node: ast.expr, names: dict[str, Any], place: str) -> Any:
    """What an expression names, or None where that can't be told."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Call):
        return _Instance(_made(node, names, place))
    if not isinstance(node, ast.Attribute):
        return None
    owner = _look_up(node.value, names, place)
    if owner is None or (isinstance(owner, _Instance) and owner.of is None):
        return None
    known = owner.of if isinstance(owner, _Instance) else owner
    if not any(_has(one, node.attr) for one in ([known] if not isinstance(owner, _Instance) else _family(known))):
        raise ValueError(f"{place}: {ast.unparse(node)}: {known!r} has no {node.attr}")
    found = getattr(known, node.attr, None)
    is_method = isinstance(owner, _Instance) and inspect.isfunction(found)
    return found.__get__(object()) if is_method and found is not None else found


def _family(known: type) -> list[type]:
    """A class and all below it: what a function returns may be one of these."""
    return [known, *(inner for below in known.__subclasses__() for inner in _family(below))]


def _has(known: Any, name: str) -> bool:
    """Whether an object, or those of a class, have an attribute, if only from ``__init__`` on."""
    if hasattr(known, name) or hasattr(known, "__getattr__"):
        return True
    made = [one for one in getattr(known, "__mro__", ()) if one.__module__.startswith("fmirnet_monai")]
    return any(name in one.__annotations__ or f"self.{name} = " in inspect.getsource(one) for one in made)


def _check_call(node: ast.Call, names: dict[str, Any], place: str) -> None:
    called = _look_up(node.func, names, place)
    unpacked = any(isinstance(arg, ast.Starred) for arg in node.args) or any(k.arg is None for k in node.keywords)
    if not callable(called) or isinstance(called, _Instance) or unpacked:
        return
    try:
        signature = inspect.signature(called)
    except ValueError:  # of a function in C
        return
    try:
        signature.bind(*node.args, **{str(k.arg): k.value for k in node.keywords})
    except TypeError as error:
        raise ValueError(f"{place}: {ast.unparse(node)}: {error}") from error


def _made(node: ast.expr, names: dict[str, Any], place: str) -> type | None:
    """The class of what an expression makes, where it calls a class or a function that says what it returns."""
    called = _look_up(node.func, names, place) if isinstance(node, ast.Call) else None
    if inspect.isclass(called):
        return called
    if not inspect.isroutine(called):
        return None
    try:
        result = get_type_hints(called).get("return")
    except (NameError, TypeError):
        return None
    return result if inspect.isclass(result) and result.__module__.startswith("fmirnet_monai") else None
