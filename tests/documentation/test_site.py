"""The site is built without a network or a warning, asks for nothing from elsewhere, and names all that is public."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from documentation.blocks import REPOSITORY
from test_cli import COMMANDS

pytestmark = pytest.mark.slow  # building takes a quarter of a minute

BUILD = """
import socket
socket.socket.connect = None  # whoever wants to reach something fails
from mkdocs.__main__ import cli
cli()
"""
FETCHED = re.compile(
    r'<(?:script|img|iframe|source|link(?=[^>]*rel="?(?:stylesheet|icon|preload|preconnect))[^>]*)\b[^>]*'
)
ELSEWHERE = re.compile(r"""(?:src|href|srcset)=["']?(?:https?:)?//|url\(["']?(?:https?:)?//|@import""")
ROOMS = [
    (name, module.__all__)
    for name in sorted(folder.parent.name for folder in (REPOSITORY / "fmirnet_monai").glob("*/__init__.py"))
    if hasattr(module := import_module(f"fmirnet_monai.{name}"), "__all__")
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-c", BUILD, "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr[-3000:]
    return folder


def test_nothing_is_asked_of_the_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        fetched = " ".join(FETCHED.findall(page.read_text(encoding="utf-8")))
        assert "stylesheet" in fetched and not ELSEWHERE.search(fetched), f"{page}: {ELSEWHERE.search(fetched)}"
    for style in site.rglob("*.css"):
        assert not ELSEWHERE.search(style.read_text(encoding="utf-8")), style


@pytest.mark.parametrize(("room", "names"), ROOMS, ids=[room for room, _ in ROOMS])
def test_every_exported_name_has_its_place(room: str, names: list[str], site: Path) -> None:
    page = (site / "reference" / f"{room}.html").read_text(encoding="utf-8")
    assert [name for name in names if f'id="fmirnet_monai.{room}.{name}"' not in page] == []
    assert ":py:" not in page and "``" not in page


def test_every_command_has_its_place_and_all_its_options(site: Path) -> None:
    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    sections = dict(re.findall(r'<h2 id="([\w-]+)">(.*?)(?=<h2|</article>)', page, re.DOTALL))
    assert {"-".join(name) for name in COMMANDS} == set(sections)
    for name, command in COMMANDS.items():
        parameters = inspect.signature(command).parameters.values()
        wanted = [f"--{p.name}" if p.kind is p.KEYWORD_ONLY else p.name.upper() for p in parameters]
        assert re.findall(r"<tr>\s*<td><code>(.*?)</code>", sections["-".join(name)]) == wanted
