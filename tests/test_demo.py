"""The generated pair: its landmarks lead to what they are of, and deformed it is far from what it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fmirnet_monai import data, demo
from fmirnet_monai.spatial import Grid


def test_landmarks_of_the_pair_show_the_same_place(tmp_path: Path) -> None:
    files = demo.write_pair(tmp_path)
    moving, fixed = (data.read_image(files[name]) for name in ("moving", "fixed"))
    points = [data.read_points(files[f"{name}_points"], 3).positions for name in ("moving", "fixed")]
    assert 3.0 < np.linalg.norm(points[0] - points[1], axis=1).mean() < 20.0
    labels = [data.read_label(files[f"{name}_label"]) for name in ("moving", "fixed")]
    for image, label, places in zip((moving, fixed), labels, points, strict=True):
        voxels = np.rint(Grid.of(image).to_voxel(places)).astype(int).T
        assert (label[0].numpy()[tuple(voxels)] == 1).mean() > 0.9  # to the nearest voxel, of a boundary's either side
    assert (moving - fixed).abs().mean() > 30.0


def test_another_seed_is_another_pair(tmp_path: Path) -> None:
    pairs = []
    for number in (0, 0, 1):
        (tmp_path / str(len(pairs))).mkdir()
        pairs.append(data.read_image(demo.write_pair(tmp_path / str(len(pairs)), number)["fixed"]).numpy())
    assert np.array_equal(pairs[0], pairs[1]) and not np.array_equal(pairs[0], pairs[2])


def test_what_lies_in_its_folder_already_is_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "notes.txt").touch()
    given: list[dict[str, str]] = []
    monkeypatch.setattr("fmirnet_monai.workflow.register_files", lambda files, *_: given.append(files))
    demo.run_demo(tmp_path)
    assert set(given[0]) == {f"{side}{part}" for side in ("moving", "fixed") for part in ("", "_label", "_points")}
    assert all(Path(file).parent == tmp_path / "input" and Path(file).is_file() for file in given[0].values())
