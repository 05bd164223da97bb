"""Peak memory is that of the work, not of what its process held before."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from fmirnet_monai.memory import peak_memory


def allocate(mebibytes: int) -> partial:
    return partial(np.ones, mebibytes * 2**20, np.uint8)


HELD: list[torch.Tensor] = []


def small_pieces(mebibytes: int) -> None:
    """Take and free memory in pieces, below one that is kept: the C library does not return them by itself."""
    pieces = [torch.ones(2**14) for _ in range(16 * mebibytes)]
    HELD.append(torch.ones_like(pieces[0]))


def pieces_after_warming_up(mebibytes: int) -> partial:
    small_pieces(mebibytes)
    return partial(small_pieces, mebibytes)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system doesn't tell a process's peak memory")
def test_peak_memory_is_that_of_the_work_alone() -> None:
    assert peak_memory(partial(allocate, 200)) == pytest.approx(200, abs=5)
    assert peak_memory(partial(allocate, 0)) < 5
    assert peak_memory(partial(pieces_after_warming_up, 100)) == pytest.approx(100, abs=5)
