"""The command line: its words are read, and checked, before anything is loaded that a command works with."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import re
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

import fire
from fire.helptext import HelpText
from fire.trace import FireTrace

import fmirnet_monai
from fmirnet_monai.commands import COMMANDS, GONE, OWN
from fmirnet_monai.commands.prepare import DRAWN
from fmirnet_monai.errors import FAILED, INTERRUPTED, PROGRAM, STOPPED, TERMINATED, explain
from fmirnet_monai.interrupts import Terminated, told_to_stop
from fmirnet_monai.streams import best_effort, show_warning

KINDS = {str: "text", bool: "true or false", int: "whole number", float: "number"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; whatever the user can mend ends with one line on stderr and exit code 2.

    So does an interrupt, with 130, or a request to end, with 143, once what is half-written is removed.
    """
    with best_effort():
        message, status = _run(list(sys.argv[1:] if arguments is None else arguments))
        if message:  # printed only here, where the traceback is gone and with it any progress bar
            print(f"{PROGRAM}: error: {message}", file=sys.stderr)
    if message:
        sys.exit(status)


def _run(words: list[str]) -> tuple[str, int]:
    """What is to be told, empty where the command succeeds, and the exit code."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
    shown, warnings.showwarning = warnings.showwarning, show_warning
    try:
        if words == ["--version"]:
            print(fmirnet_monai.__version__)
            return "", 0
        command, name, options = _find_command(words)
        if (not options and isinstance(command, dict)) or _asks_help(options):
            print(_help(command, name))
            return "", 0
        options = _checked_words(command, options)
        tree = functools.reduce(lambda inner, word: {word: inner}, reversed(name), _checked(command))
        with told_to_stop():
            fire.Fire(tree, command=[*name, *options], name=PROGRAM)
    except (KeyboardInterrupt, Terminated) as error:
        return STOPPED, TERMINATED if isinstance(error, Terminated) else INTERRUPTED
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        if message := explain(error):
            return message, FAILED
        raise
    finally:
        warnings.showwarning = shown
    return "", 0


def _find_command(words: Sequence[str]) -> tuple[Any, list[str], list[str]]:
    """The command or group of commands that the first words name, those words, and what follows them.

    Raises:
        ValueError: for a word that names none.
    """
    command: Any = COMMANDS
    name, rest = [], list(words)
    while isinstance(command, dict) and rest and rest[0] in command:
        name.append(rest.pop(0))
        command = command[name[-1]]
    if isinstance(command, dict) and OWN in command:
        command = command[OWN]
    if isinstance(command, dict) and rest and not _asks_help(rest):
        raise ValueError(f"unknown command {rest[0]!r}; there are {', '.join(filter(None, command))}.")
    return command, name, rest


def _help(command: Any, name: Sequence[str]) -> str:
    """Fire's page on a command or a group, with types in words and without defaults of None."""
    trace = FireTrace(command, PROGRAM)
    for word in name:
        trace.AddAccessedProperty(command, word, [word], None, None)
    page = HelpText(_checked(command, described=True), trace)
    return re.sub(r"Type: Optional\[(.*)\]\n +Default: None\n", r"Type: \1\n", page)


def _asks_help(words: Sequence[str]) -> bool:
    return "--help" in words or "-h" in words


def _checked_words(command: Callable, rest: Sequence[str]) -> list[str]:
    """A command's words, of which those that are text are quoted: Fire reads what it is given as Python.

    Raises:
        ValueError: for an option or a word that the command does not know, or a required option that is not there. Fire
            would run the command first, and would answer with its own usage text.
    """
    parameters, hints = inspect.signature(command).parameters, get_type_hints(command)
    words = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    given, checked = set(), []
    waiting = None  # option whose value is the next word
    for word in rest:
        if option := re.match(r"--?([A-Za-z][\w-]*)(=?)", word):
            name = _option_name(option[1].replace("-", "_"), list(parameters))
            given.add(name)
            checked.append(f"--{name}={_typed(word[option.end() :], hints[name])}" if option[2] else f"--{name}")
            waiting = None if option[2] else name
            continue
        if waiting is None and not words:
            raise ValueError(f"unexpected word {word!r}; options are given as --name value.")
        name, waiting = waiting or words.pop(0), None
        given.add(name)
        checked.append(_typed(word, hints[name]))
    if "sections" in given and (drawn := [f"--{name}" for name in DRAWN if name in given]):
        raise ValueError(f"give either --sections, which says where each subject stands, or {' and '.join(drawn)}.")
    if missing := [f"--{name}" for name, p in parameters.items() if p.default is p.empty and name not in given]:
        raise ValueError(f"missing {' and '.join(missing)}; see --help.")
    return checked


def _typed(word: str, hint: Any) -> str:
    """A word for Fire to parse: text as a Python literal of just what was typed, with ``~`` for the user's home."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    texts = [kind for kind in kinds if str in (kind, *get_args(kind))]
    if not texts or (bool in kinds and word.lower() in ("true", "false")):
        return word
    items = [os.path.expanduser(item) for item in word.split(",")]
    return repr(",".join(items) if str in texts else items)


def _option_name(name: str, known: list[str]) -> str:
    """The parameter that an option means; one letter stands for the only parameter that begins with it, as in Fire."""
    if len(name) == 1 and len(short := [k for k in known if k.startswith(name)]) == 1:
        return short[0]
    if name in GONE and name not in known:
        raise ValueError(f"--{name}: {GONE[name]}")
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean --{close[0]}?" if close else f"there are {', '.join('--' + k for k in known)}."
        raise ValueError(f"unknown option --{name}; {hint}")
    return name


def _checked(commands: Any, described: bool = False) -> Any:
    """The same commands, which check the type of each argument as its annotation says, or describe it in words."""
    if isinstance(commands, dict):
        checked = {name: _checked(command, described) for name, command in commands.items() if name != OWN}
        return {name: _Group(commands[name], c) if isinstance(c, dict) else c for name, c in checked.items()}
    return _describe_types(commands) if described else _check_types(commands)


def _describe_types(command: Callable) -> Callable:
    hints, signature = get_type_hints(command), inspect.signature(command)

    @functools.wraps(command)
    def described() -> None:
        """Only to be read about."""

    parameters = [p.replace(annotation=_Words(hints[name])) for name, p in signature.parameters.items()]
    described.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return described


class _Group(dict):
    """A group of commands that help can say something of: what its name alone does, or what it holds."""

    def __init__(self, commands: dict[str, Any], checked: dict[str, Any]) -> None:
        super().__init__(checked)
        alone = inspect.getdoc(commands[OWN]) if OWN in commands else None
        held = f"With one word more: {', '.join(checked)}."
        self.__doc__ = f"{alone.splitlines()[0]} {held}" if alone else held


class _Words:
    """A type as help writes it."""

    def __init__(self, hint: Any) -> None:
        self.hint = hint

    def __repr__(self) -> str:
        if get_origin(self.hint) in (Union, types.UnionType):
            return " or ".join(repr(_Words(h)) for h in get_args(self.hint) if h is not type(None))
        if get_origin(self.hint) is Sequence:
            return f"{_Words(get_args(self.hint)[0])}, …"
        return KINDS[self.hint]


def _check_types(command: Callable) -> Callable:
    hints = get_type_hints(command)

    @functools.wraps(command)
    def checked(*args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(command).bind(*args, **kwargs).arguments
        return command(**{name: _convert(name, value, hints[name]) for name, value in given.items()})

    return checked


def _convert(name: str, value: Any, hint: Any) -> Any:
    """``value`` as Fire parsed it, as the type of the annotation; ValueError that names the option otherwise."""
    if get_origin(hint) in (Union, types.UnionType):
        if value is None:
            return None
        if isinstance(value, bool) and bool in get_args(hint):
            return value
        hint = next(h for h in get_args(hint)[::-1] if h is not type(None))
    if get_origin(hint) is Sequence:
        if isinstance(value, str):
            value = value.split(",")
        items = value if isinstance(value, (list, tuple)) else [value]
        return [_convert(name, item, get_args(hint)[0]) for item in items]
    if hint is str and isinstance(value, str):
        return value
    if hint is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if hint in (int, float) and not isinstance(value, (bool, str)):
        try:
            if hint(value) == value:
                return hint(value)
        except TypeError:
            pass
    article = "a " if hint in (int, float) else ""
    raise ValueError(f"--{name}: expected {article}{KINDS[hint]}, got {value!r}.")
