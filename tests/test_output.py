"""Folders and files of results: what they replace, what they leave alone, and what is refused before the work."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fmirnet_monai.output import require_folder, require_output, result_folder
from fmirnet_monai.utils import replacing, write_text


def write(folder: Path, names: Sequence[str], text: str, inputs: Iterable[Path] = (), listed: bool = True) -> None:
    """A result of these files and its ``metrics.json``."""
    with result_folder(folder, inputs) as partial:
        for name in names:
            (partial / name).write_text(text)
        (partial / "metrics.json").write_text(json.dumps({"files": [*names]} if listed else {"pair": {}}))


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir() if file.name != "metrics.json"}


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "of an earlier version"])
def test_what_the_last_result_had_and_this_one_has_not_goes_and_all_else_stays(tmp_path: Path, listed: bool) -> None:
    write(tmp_path / "out", ["transform.h5", "report.html", "warped_label.nii.gz"], "first", listed=listed)
    (tmp_path / "out" / "notes.txt").write_text("the user's")
    write(tmp_path / "out", ["transform.h5"], "second")
    assert contents(tmp_path / "out") == {"transform.h5": "second", "notes.txt": "the user's"}
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_what_the_last_result_had_goes_from_a_folder_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "there")
    write(tmp_path / "out", ["transform.h5", "inside.nii.gz"], "first")
    write(tmp_path / "out", ["transform.h5"], "second")
    assert contents(tmp_path / "there") == {"transform.h5": "second"}


def test_a_file_that_no_result_lists_is_somebody_s(tmp_path: Path) -> None:
    write(tmp_path / "out", ["transform.h5"], "first")
    (tmp_path / "out" / "report.html").write_text("the user's")
    write(tmp_path / "out", ["transform.h5"], "second")
    assert contents(tmp_path / "out") == {"transform.h5": "second", "report.html": "the user's"}


@pytest.mark.parametrize("name", ["../other.txt", "notes.txt", "/etc/hostname"])
def test_a_list_of_files_removes_none_but_a_result_s(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    for kept in (tmp_path / "other.txt", tmp_path / "out" / "notes.txt"):
        kept.write_text("kept")
    (tmp_path / "out" / "metrics.json").write_text(json.dumps({"files": [name]}))
    write(tmp_path / "out", ["transform.h5"], "new")
    assert (tmp_path / "other.txt").is_file() and (tmp_path / "out" / "notes.txt").is_file()


def test_a_result_that_fails_leaves_the_last_one_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "out", ["transform.h5"], "first")
    with pytest.raises(KeyError), result_folder(tmp_path / "out", ()) as partial:
        (partial / "transform.h5").write_text("second")
        raise KeyError
    assert contents(tmp_path / "out") == {"transform.h5": "first"} and (tmp_path / "out" / "metrics.json").is_file()
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("moves", range(4))
def test_stopped_while_files_move_there_is_no_result_and_the_next_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    write(tmp_path / "out", ["report.html", "transform.h5", "warped.nii.gz"], "first")
    left, move = [moves], os.replace

    def stop(source: Path, target: Path) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        move(source, target)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", ["transform.h5", "warped.nii.gz"], "second")
    assert (tmp_path / "out" / "metrics.json").is_file() == (moves == 0)
    monkeypatch.undo()
    write(tmp_path / "out", ["warped.nii.gz"], "third")
    assert contents(tmp_path / "out") == {"warped.nii.gz": "third"}


@pytest.mark.parametrize("linked", [False, True], ids=["itself", "through a link"])
def test_a_folder_that_an_input_lies_in_is_refused_where_it_would_be_lost(tmp_path: Path, linked: bool) -> None:
    write(tmp_path / "out", ["warped.nii.gz"], "first")
    given = tmp_path / "link.nii.gz" if linked else tmp_path / "out" / "warped.nii.gz"
    if linked:
        given.symlink_to(tmp_path / "out" / "warped.nii.gz")
    with pytest.raises(ValueError, match=rf"output_dir: .*{given.name} is an input, which would be overwritten"):
        write(tmp_path / "out", ["transform.h5"], "second", [given])
    assert contents(tmp_path / "out") == {"warped.nii.gz": "first"}
    (tmp_path / "out" / "scan.nii.gz").write_text("kept")
    write(tmp_path / "out", ["transform.h5"], "second", [tmp_path / "out" / "scan.nii.gz"])


def series(folder: Path, count: int) -> None:
    """A result with a DICOM series of so many slices."""
    with result_folder(folder, ()) as partial:
        names = [f"warped/{number:05d}.dcm" for number in range(count)]
        (partial / "warped").mkdir(exist_ok=True)
        for name in names:
            (partial / name).write_text(str(count))
        (partial / "metrics.json").write_text(json.dumps({"files": names}))


def test_slices_of_the_last_series_go_and_the_user_s_stay(tmp_path: Path) -> None:
    series(tmp_path / "out", 4)
    series(tmp_path / "out", 2)
    assert contents(tmp_path / "out" / "warped") == {"00000.dcm": "2", "00001.dcm": "2"}
    (tmp_path / "out" / "warped" / "notes.txt").write_text("the user's")
    write(tmp_path / "out", ["warped.nii.gz"], "third")
    assert contents(tmp_path / "out" / "warped") == {"notes.txt": "the user's"}
    (tmp_path / "out" / "warped" / "notes.txt").unlink()
    series(tmp_path / "out", 1)
    write(tmp_path / "out", ["warped.nii.gz"], "fifth")
    assert contents(tmp_path / "out") == {"warped.nii.gz": "fifth"}


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_series_goes_into_no_folder_but_the_result_s_own(tmp_path: Path, kind: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    if kind == "link":
        (tmp_path / "out" / "warped").symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / "out" / "warped").touch()
    with pytest.raises(NotADirectoryError, match="warped: is a file or a link, where a folder is to be"):
        series(tmp_path / "out", 2)
    kept = tmp_path / "elsewhere" / "00001.dcm"
    kept.write_text("kept")
    (tmp_path / "out" / "metrics.json").write_text(json.dumps({"files": ["warped/00001.dcm"]}))
    write(tmp_path / "out", ["transform.h5"], "next")
    assert kept.read_text() == "kept"


@pytest.mark.parametrize("given", ["warped", "warped/00000.dcm"])
def test_a_series_that_is_an_input_is_not_overwritten(tmp_path: Path, given: str) -> None:
    series(tmp_path / "out", 1)
    with pytest.raises(ValueError, match=rf"output_dir: .*{given} is an input, which would be overwritten"):
        write(tmp_path / "out", ["transform.h5"], "second", [tmp_path / "out" / given])


def test_what_can_t_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a.mha").touch()
    with pytest.raises(NotADirectoryError, match=r"file/out: can't be made, .*file is a file"):
        require_folder(tmp_path / "file" / "out")
    with pytest.raises(OSError, match=r"/proc/out: can't be written"):
        require_folder("/proc/out")
    with pytest.raises(IsADirectoryError, match="is a folder; name a file in it"):
        require_output(tmp_path, None)
    with pytest.raises(ValueError, match=r"a\.mha: is an input, which would be overwritten"):
        require_output(tmp_path / ".." / tmp_path.name / "a.mha", (".mha",), [tmp_path / "a.mha"])
    with pytest.raises(ValueError, match=r"b\.txt: unknown suffix"):
        require_output(tmp_path / "b.txt", (".mha",))
    assert require_output(tmp_path / "new" / "b.MHA", (".mha",), [None, "absent"]) == ".mha"
    assert not (tmp_path / "new").exists()


def test_two_that_write_one_file_at_a_time_don_t_meet(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.txt") as one, replacing(tmp_path / "a.txt") as other:
        one.write_text("one")
        other.write_text("other")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["one"]


def test_a_large_folder_is_not_looked_through_for_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def slowly(place: Path) -> Any:
        looked.append(str(place))
        time.sleep(0.02)
        return iter_entries(place)

    iter_entries = os.scandir
    monkeypatch.setattr(os, "scandir", slowly)
    for number in range(5):
        write_text(tmp_path / f"{number}.txt", "x")
    assert looked.count(str(tmp_path)) == 1
