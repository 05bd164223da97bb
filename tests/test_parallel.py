"""Several items at a time, in threads and in processes."""

import os
import threading
import time

import pytest
import torch

from fmirnet_monai.parallel import at_a_time

CPU = torch.device("cpu")


def own_process(item: int) -> tuple[int, int, int]:
    return item, torch.get_num_threads(), os.getpid()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_as_many_items_at_a_time_as_torch_has_threads(two_threads: None, capsys: pytest.CaptureFixture) -> None:
    """Two that wait for each other both end, in the items' order, with one thread each."""
    both = threading.Barrier(2, timeout=10)

    def work(item: int) -> tuple[int, int]:
        both.wait()
        time.sleep(0.05 * (4 - item))  # the later ones end earlier
        return item, torch.get_num_threads()

    assert at_a_time(work, [0, 1, 2, 3], CPU, "counting", "number") == [(item, 1) for item in range(4)]
    assert torch.get_num_threads() == 2
    assert "counting: 100%" in capsys.readouterr().err


def test_processes_of_one_thread(two_threads: None) -> None:
    said: list[tuple[int, int, int]] = []
    found = at_a_time(own_process, [3, 2, 1], CPU, "counting", "number", said=said.append, processes=True)
    assert [item for item, *_ in found] == [3, 2, 1] and sorted(said) == sorted(found)
    assert {threads for _, threads, _ in found} == {1} and os.getpid() not in {process for *_, process in found}


def test_a_killed_process_is_told(two_threads: None) -> None:
    with pytest.raises(ChildProcessError, match=r"counting: one of 2 processes was killed.* set OMP_NUM_THREADS"):
        at_a_time(os._exit, [1, 2], CPU, "counting", "number", show=False, processes=True)
    assert torch.get_num_threads() == 2


def test_the_first_error_ends_it(two_threads: None, capsys: pytest.CaptureFixture) -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 0:
            raise ValueError("no")
        time.sleep(0.05)
        done.append(item)

    with pytest.raises(ValueError, match="no"):
        at_a_time(work, [*range(100)], CPU, "counting", "number", show=False)
    assert len(done) < 50 and torch.get_num_threads() == 2
    assert capsys.readouterr().err == ""
