"""Every block of every page runs on the example files, or says what it needs and has its options read all the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import run
from documentation.blocks import LANGUAGES, REPOSITORY, Block, blocks, bundle_words, command_lines, own_words, pages
from documentation.code import check_code
from documentation.options import check_commands, copied_bundles

from fmirnet_monai import cli

Captured = pytest.CaptureFixture[str]
TUTORIALS = REPOSITORY / "docs" / "tutorials"  # they train
SHELL: dict[str, Callable[[list[str]], Any]] = {
    "cd": lambda words: os.chdir(words[0]),
    "mkdir": lambda words: [Path(word).mkdir(parents=True, exist_ok=True) for word in words if word != "-p"],
    "cp": lambda words: shutil.copy(*words),
    "ls": lambda words: [print(*sorted(os.listdir(word))) for word in words or ["."]],
    "cat": lambda words: [print(Path(word).read_text()) for word in words],
}


def name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY).with_suffix(""))


def to_run(page: Path) -> list[Block]:
    return [block for block in blocks(page) if not block.needs and block.language in ("bash", "python")]


ALL = pages()


@pytest.mark.parametrize("page", ALL, ids=name)
def test_what_a_page_shows_can_be_read(page: Path) -> None:
    names: dict[str, Any] = {}
    copies: dict[str, Path] = {}
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.place}: a block of {block.language!r}"
        if block.language == "bash":
            for words in command_lines(block.text):
                copies |= copied_bundles(words)
            check_commands(block, copies)
        elif block.language == "python":
            check_code(block.text, names, block.place)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "yaml":
            list(yaml.safe_load_all(block.text))


@pytest.mark.parametrize("page", [page for page in ALL if not name(page).startswith("docs/")], ids=name)
def test_links_lead_to_files_where_no_site_is_built(page: Path) -> None:
    links = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [page for page in ALL if to_run(page) and page.parent != TUTORIALS], ids=name)
def test_what_a_page_shows_runs(page: Path, examples: Path, own_folder: Path, capfd: Captured) -> None:
    shutil.copytree(examples, own_folder, dirs_exist_ok=True)
    follow(page, capfd)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in ALL if to_run(page) and page.parent == TUTORIALS], ids=name)
def test_a_tutorial_can_be_followed_in_an_empty_folder(page: Path, own_folder: Path, capfd: Captured) -> None:
    follow(page, capfd)


def follow(page: Path, capfd: Captured) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in to_run(page):
        if block.language == "python":
            exec(compile(block.text, block.place, "exec"), names)
            continue
        for words in command_lines(block.text):
            try:
                run_line(words)
            except SystemExit as stop:
                said = capfd.readouterr().err.splitlines()[-1:]
                pytest.fail(f"{block.place}: {' '.join(words)}: ended with {stop.code}: {said}")


def run_line(words: list[str]) -> None:
    if (own := own_words(words)) is not None:
        cli.main(own)
    elif (bundle := bundle_words(words)) is not None:
        done = run([sys.executable, "-m", "monai.bundle", *bundle], Path.cwd())
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr[-3000:]}"
    else:
        assert words[0] in SHELL, f"{words[0]} is not run here; say what it needs, <!-- needs: … -->"
        SHELL[words[0]](words[1:])
