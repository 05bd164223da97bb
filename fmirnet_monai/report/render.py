"""Templates, styles and scripts of the package to one HTML file that asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from fmirnet_monai.utils import write_text

FOLDER = Path(__file__).with_name("templates")


def write_page(path: str | Path, template: str, styles: Sequence[str], scripts: Sequence[str], **content: Any) -> Path:
    """Write a page, whole or not at all.

    Its security policy allows its own style and script, by their hashes, and pictures that it holds: nothing is asked
    from any network, whatever the names in it are.

    Args:
        path: HTML to write.
        template: file of :py:data:`FOLDER`.
        styles: files of it, joined.
        scripts: the same.
        content: what the template shows, escaped.

    Returns:
        ``path``.

    Raises:
        OSError: when it can't be written.
    """
    from markupsafe import Markup

    style, script = (_joined(tuple(names)) for names in (styles, scripts))
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{_digest(style)}'; "
        f"script-src 'sha256-{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template(template)
    text = page.render(policy=policy, style=Markup(style), script=Markup(script), **content)  # nosec B704
    write_text(path, text.encode("ascii", "xmlcharrefreplace").decode())  # whatever the encoding of this computer
    return Path(path)


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _joined(names: tuple[str, ...]) -> str:
    return "\n".join((FOLDER / name).read_text(encoding="ascii") for name in names)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("ascii")).digest()).decode()
