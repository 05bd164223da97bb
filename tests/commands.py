"""Commands as users give them: in a process of their own and with one thread, or in the test's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fmirnet_monai.cli import main

REPOSITORY = Path(__file__).parents[1]
BUNDLES = REPOSITORY / "bundles"
SCHEMA = REPOSITORY / "fmirnet_monai" / "zoo" / "meta_schema_20240725.json"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def options(**values: Any) -> list[str]:
    """Overrides as words of the command line."""
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def here(capsys: pytest.CaptureFixture[str], *words: str, **values: Any) -> tuple[str, str]:
    """A command of this package in the test's own process, and what it says on both streams."""
    capsys.readouterr()
    main([*words, *options(**values)])
    said = capsys.readouterr()
    return said.out, said.err


def bundle_words(configs: str | Path | Sequence[str | Path], **overrides: Any) -> list[str]:
    """The words of ``python -m monai.bundle run`` with overrides."""
    files = [str(configs)] if isinstance(configs, str | Path) else [str(file) for file in configs]
    config = files[0] if len(files) == 1 else str(files)
    return [sys.executable, "-m", "monai.bundle", "run", "--config_file", config, *options(**overrides)]


def run(words: Sequence[str], cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """Run to the end, whatever comes of it."""
    return subprocess.run(words, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def bundle_run(
    configs: str | Path | Sequence[str | Path], cwd: Path = REPOSITORY, **overrides: Any
) -> subprocess.CompletedProcess[str]:
    """``python -m monai.bundle run`` with overrides, from the repository's root."""
    return run(bundle_words(configs, **overrides), cwd)
