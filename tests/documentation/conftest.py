"""The folder of example files that the pages' blocks run in, made once."""

from __future__ import annotations

import os
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
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which the test is in."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    return tmp_path
