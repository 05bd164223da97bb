"""References of docstrings, ``:py:class:`…```, as links where what they name is exported, else as its name."""

from __future__ import annotations

import re
from typing import Any

import griffe
import reference

ROLE = re.compile(r":py:\w+:`~?([\w.]+)`")
HOMES = {name: f"fmirnet_monai.{room}.{name}" for room in reference.ROOMS for name in reference.exported(room)}


class Roles(griffe.Extension):
    """Rewrites the docstrings that are read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """See griffe."""
        if obj.docstring:
            obj.docstring.value = ROLE.sub(_link, obj.docstring.value).replace("``", "`")


def _link(role: re.Match[str]) -> str:
    owner, _, member = role[1].rpartition(".")
    if home := HOMES.get(member):
        return f"[`{member}`][{home}]"
    if home := HOMES.get(owner.rpartition(".")[2]):
        return f"[`{role[1]}`][{home}]"
    return f"`{role[1]}`"
