"""Fixtures shared by all tests: the real samples where they are there, and a small generated sample."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fmirnet_monai.data import Pairing, find_chaos_cases, read_chaos_case, write_pairs, write_phantom

REPOSITORY = Path(__file__).parents[1]
REAL_DATA = Path(os.environ.get("FMIRNET_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real image samples; skips the test where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"the real image samples are not there: no folder {REAL_DATA} (set FMIRNET_DATA to it)")
    return REAL_DATA


@pytest.fixture(scope="session")
def raw_phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small generated volumes in the layout of CHAOS CT."""
    return write_phantom(
        tmp_path_factory.mktemp("phantom"), subjects=4, shape=(64, 56, 16), spacing=(6.0, 6.0, 8.0), seed=5
    )


@pytest.fixture(scope="session")
def small_sample(raw_phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the datalist of the small generated volumes: two subjects to train, one each for the rest."""
    folder = tmp_path_factory.mktemp("sample")
    volumes = map(read_chaos_case, find_chaos_cases(raw_phantom))
    write_pairs(volumes, folder, Pairing(r=0.3, fractions=(0.5, 0.25, 0.25)))
    return folder
