"""All cases of a datalist: what is there already is left, what has changed is done again."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from commands import BUNDLES
from faults.inputs import blocks, texture, write

from fmirnet_monai.cli import main
from fmirnet_monai.registration import Guidance, Method
from fmirnet_monai.resume import is_done, result_key

QUICK = ["--bundle", "none"]


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """A datalist of two drawn volumes and one whose label is drawn on a single slice."""
    items = []
    for n in range(3):
        image = texture((24, 20, 5), n)
        label = blocks(image.shape)
        label[..., [1, 3] if n < 2 else [0, 1, 2, 3]] = 0
        for name, values in (("image", image), ("label", label)):
            write(tmp_path / "in" / f"{name}_{n}.nii.gz", values)
        items.append({"image": f"image_{n}.nii.gz", "label": f"label_{n}.nii.gz"})
    (tmp_path / "in" / "list.json").write_text(json.dumps({"test": items}))
    return tmp_path / "in" / "list.json"


def propagate(datalist: Path, *more: str) -> dict[str, int]:
    """When the label of each volume was written, once those that can be are."""
    out = datalist.parents[1] / "out"
    with pytest.raises(SystemExit) as stopped:
        main(["propagate", "--datalist", str(datalist), "--output_dir", str(out), *QUICK, *more])
    assert stopped.value.code == 2
    return {file.parent.name: file.stat().st_mtime_ns for file in out.glob("[0-9]*/label.nii.gz")}


def test_volumes_of_a_datalist_are_labelled_as_each_alone(
    volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = propagate(volumes)
    said = capsys.readouterr()
    assert "1 of 3 volumes failed" in said.err and "annotate at least two" in said.err
    assert set(first) == {"0000_image_0", "0001_image_1"}
    table = pd.read_csv(tmp_path / "out" / "summary.csv", keep_default_na=False)
    assert table["annotation"].tolist() == ["annotated along axis 2: 0, 2, 4"] * 2 + [""]
    assert [bool(text) for text in table["error"]] == [False, False, True]
    files = {name: str(volumes.parent / f"{name}_1.nii.gz") for name in ("image", "label")}
    words = [word for name, path in files.items() for word in (f"--{name}", path)]
    main(["propagate", *words, "--output", str(tmp_path / "one.nii.gz"), *QUICK])
    for name, alone in (("label", "one"), ("confidence", "one_confidence")):
        shared = tmp_path / "out" / "0001_image_1" / f"{name}.nii.gz"
        assert shared.read_bytes() == (tmp_path / f"{alone}.nii.gz").read_bytes()

    assert propagate(volumes) == first and "2 of 3 are there already" in capsys.readouterr().err
    label = blocks((24, 20, 5))
    label[..., 3] = 0
    write(volumes.parent / "label_1.nii.gz", label)
    second = propagate(volumes)
    assert second["0000_image_0"] == first["0000_image_0"] and second["0001_image_1"] > first["0001_image_1"]
    third = propagate(volumes, "--label_ids", "1")  # another setting
    assert all(third[name] > second[name] for name in second)
    fourth = propagate(volumes, "--label_ids", "1", "--overwrite", "true")
    assert all(fourth[name] > third[name] for name in third)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--datalist {list}", "give --output_dir"),
        ("--datalist {list} --output_dir o --image a", "got --datalist and --image"),
        ("--image a --label b", "give --image, --label and --output, or --datalist"),
        ("--image a --label b --output c.nii.gz --output_dir o", "output_dir: is for a datalist"),
        ("--datalist {list} --output_dir o --section training", "the section 'training' is empty; list items with"),
        ("--datalist {pairs} --output_dir o", "lacks 'image' or 'label'"),
    ],
)
def test_what_can_not_be_labelled_is_told(
    words: str, message: str, volumes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(volumes.parent)
    (volumes.parent / "pairs.json").write_text(json.dumps({"test": [{"moving": "a", "fixed": "b"}]}))
    with pytest.raises(SystemExit):
        main(["propagate", *words.format(list=volumes, pairs="pairs.json").split()])
    assert message in capsys.readouterr().err and not Path("o").exists()


def test_a_key_is_that_of_contents_and_settings_not_of_names() -> None:
    given, sha256 = {"moving": "a", "moving_channels": ["b", "c"]}, {"a": "1", "b": "2", "c": "3"}
    key = result_key(given, sha256, {"refine": 2, "flips": False})
    renamed = result_key(
        {"moving_channels": ["y", "z"], "moving": "x"},
        {"x": "1", "y": "2", "z": "3"},
        {"flips": False, "refine": 2},
    )
    assert key == renamed
    others = [
        result_key(given, {**sha256, "c": "4"}, {"refine": 2, "flips": False}),
        result_key({**given, "moving_channels": ["c", "b"]}, sha256, {"refine": 2, "flips": False}),
        result_key({"fixed": "a", "moving_channels": ["b", "c"]}, sha256, {"refine": 2, "flips": False}),
        result_key(given, sha256, {"refine": 3, "flips": False}),
    ]
    assert len({key, *others}) == 5


OTHER: dict[str, Any] = {
    "bundle": "none", "affine": "rigid", "refine": 3, "slices": True, "intensity": "percentiles", "device": "cpu",
    "similarity": "lncc", "optimizer": "affine", "fill": 0.0, "antialias": True, "guidance": Guidance(labels=1.0),
    "flips": True, "variant": "images_alone", "checks": False, "uncertainty": True,
}  # fmt: skip


def test_every_option_counts_and_only_those_of_showing_and_trust_do_not() -> None:
    options = {one.name for one in fields(Method) if one.init}
    assert options - set(OTHER) == {"progress", "trust_bundle"}
    found = [Method().identity(), *(Method(**{name: value}).identity() for name, value in OTHER.items())]
    assert len({json.dumps(one, sort_keys=True) for one in found}) == 1 + len(OTHER)
    assert Method(progress=False, trust_bundle=True).identity() == Method().identity()


def test_a_bundle_counts_by_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(BUNDLES / "fmirnet_chaos" / "configs", tmp_path / "mine" / "configs")
    shutil.copytree(BUNDLES / "fmirnet_chaos" / "models", tmp_path / "mine" / "models")
    monkeypatch.chdir(tmp_path)
    named, mine = Method("fmirnet_chaos"), Method("mine")
    assert named.identity() == mine.identity() == mine.anywhere().identity()
    assert mine.anywhere() == replace(mine, bundle=str(tmp_path / "mine")) and named.anywhere() == named
    before = mine.identity()
    weights = tmp_path / "mine" / "models" / "model.pt"
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert mine.identity() != before


def test_a_record_that_is_no_such_result_is_not_done(tmp_path: Path) -> None:
    record, image = tmp_path / "metrics.json", tmp_path / "a"
    image.write_bytes(b"1")
    given = {"moving": str(image)}
    key = result_key(given, {str(image): "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"}, {})
    for text in ("", "[]", "{}", '{"key": 1, "files": 3}', json.dumps({"key": key, "files": ["gone"]})):
        record.write_text(text)
        assert not is_done(record, given, {})
    record.write_text(json.dumps({"key": key, "files": ["metrics.json"]}))
    assert is_done(record, given, {}) and not is_done(record, given, {"refine": 1})
    image.unlink()
    assert not is_done(record, given, {})
