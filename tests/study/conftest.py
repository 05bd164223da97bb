"""The pairs that comparison and tuning share."""

from __future__ import annotations

from pathlib import Path

import pytest

from fmirnet_monai.study import Cases


@pytest.fixture(scope="module")
def cases(small_sample: Path) -> Cases:
    return Cases(str(small_sample / "datalist.json"), "test", spatial_size=48, count=6)
