"""What is said to a person; nothing is loaded for it."""

from __future__ import annotations


def one_line(text: object, longest: int = 900) -> str:
    """A text as a line that a terminal shows as it is: what files hold and messages quote may be anything."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(str(text).split()))
    return line if len(line) <= longest else f"{line[: longest - 200]} … {line[-190:]}"
