"""The fenced blocks of a page, with what they need beside the example files, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

REPOSITORY = Path(__file__).parents[2]
NEEDS = ("data", "gpu", "cluster", "server", "network", "minutes", "docker")
LANGUAGES = ("bash", "python", "json", "yaml", "text")  # text is shown, and neither run nor parsed
MARKER = re.compile(r"<!-- needs: (.*?) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: its file.
        line: of its fence, from 1.
        language: of its fence.
        text: what it holds.
        needs: what it has to have, so that it isn't run here; empty where it is.
    """

    page: Path
    line: int
    language: str
    text: str
    needs: str

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def pages() -> list[Path]:
    """Every page that a user may read, results aside, whose commands need the data sets."""
    found = [*REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("bundles/*/docs/*.md"), *REPOSITORY.glob("apps/*/*.md")]
    return [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "SECURITY.md", *sorted(found)]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in order.

    Raises:
        ValueError: for a marker that is not directly before a fence, or names something else than :py:data:`NEEDS`.
    """
    text = page.read_text(encoding="utf-8")
    found, marked = [], ""
    for token in MarkdownIt().parse(text):
        if token.type == "html_block" and (marker := MARKER.fullmatch(token.content.strip())):
            marked = marker[1]
            if marked not in NEEDS:
                raise ValueError(f"{page}: a block needs {marked!r}, which is none of {', '.join(NEEDS)}.")
        elif token.type == "fence":
            line = token.map[0] + 1 if token.map else 0
            found.append(Block(page, line, token.info.strip(), token.content, marked))
            marked = ""
        elif marked:
            break
    if marked or len(MARKER.findall(text)) != sum(bool(block.needs) for block in found):
        raise ValueError(f"{page}: a line <!-- needs: … --> belongs directly before a fence, not in a list or a text.")
    return found


def command_lines(text: str) -> list[list[str]]:
    """The words of each command of a shell block.

    A line that ends with a backslash goes on; variables are filled in, and of a loop the first turn is taken.
    """
    variables: dict[str, str] = {}
    found = []
    for written in re.sub(r"\\\n\s*", " ", text).splitlines():
        bare = re.sub(r"(^|\s)#(\s.*)?$", "", written).strip()  # a # in a word, as in network_def#combine, is none
        line = re.sub(r"\$(\w+)", lambda name: variables.get(name[1], name[0]), bare)
        if (loop := re.fullmatch(r"for (\w+) in (.*); do", line)) or (named := re.fullmatch(r"(\w+)=(.*)", line)):
            name, value = (loop or named).groups()
            variables[name] = shlex.split(value)[0]
        elif line and line != "done":
            found.append(shlex.split(line))
    return found


def own_words(words: list[str]) -> list[str] | None:
    """What follows the name of this package's program in a command line, or None where it does not call it."""
    for index, word in enumerate(words):
        if word == "fmirnet" or (word == "fmirnet_monai" and index and words[index - 1] == "-m"):
            return words[index + 1 :]
    return None


def bundle_words(words: list[str]) -> list[str] | None:
    """What follows ``-m monai.bundle`` in a command line, or None where it does not call it."""
    for index, word in enumerate(words):
        if word == "monai.bundle" and index and words[index - 1] == "-m":
            return words[index + 1 :]
    return None
