"""The folder of example files that the pages' blocks run in, made once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from documentation.examples import write_examples


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example files; not to be written to."""
    folder, before = tmp_path_factory.mktemp("examples"), Path.cwd()
    os.chdir(folder)
    try:
        write_examples(folder)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def fresh_copy(examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Enter a copy of the example files."""

    def enter() -> Path:
        shutil.copytree(examples, tmp_path, dirs_exist_ok=True)
        monkeypatch.chdir(tmp_path)
        torch.manual_seed(0)
        return tmp_path

    return enter
