"""Guides on the command: what they do, how their metrics are marked in every output, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import MetaTensor

from fmirnet_monai.cli import main
from fmirnet_monai.data import Points, write_image, write_points
from fmirnet_monai.spatial import smooth
from fmirnet_monai.workflow import split_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair of images that differ in noise alone; labels, landmarks and channels have moved by three voxels."""
    folder = tmp_path_factory.mktemp("guides")
    image = smooth(torch.rand(1, 1, 48, 44, generator=torch.Generator().manual_seed(0)), 2.0)[0]
    channel = smooth(torch.rand(1, 1, 48, 44, generator=torch.Generator().manual_seed(1)), 2.0)[0]
    affine = torch.diag(torch.tensor([1.5, 1.5, 1.0], dtype=torch.double))
    for seed, (name, shift) in enumerate((("moving", 3), ("fixed", 0))):
        noise = 0.1 * image.std() * torch.randn(image.shape, generator=torch.Generator().manual_seed(2 + seed))
        write_image(MetaTensor(image + noise, affine=affine), folder / f"{name}.nii.gz")
        write_image(MetaTensor(channel.roll(shift, 1), affine=affine), folder / f"{name},T2.nii.gz")
        label = torch.zeros(1, 48, 44, dtype=torch.int)
        label[:, 12 + shift : 22 + shift, 12:28] = 1
        write_image(MetaTensor(label, affine=affine), folder / f"{name}_label.nii.gz")
        places = 1.5 * (np.array([[12.0, 12.0], [12.0, 28.0], [22.0, 12.0], [22.0, 28.0]]) + [shift, 0])
        write_points(Points(places, list("abcd")), folder / f"{name}.csv")
    return folder


def words(folder: Path, *parts: str) -> list[str]:
    """The pair, with its labels, points or channels."""
    forms = {"image": "{}.nii.gz", "label": "{}_label.nii.gz", "points": "{}.csv", "channels": "{},T2.nii.gz"}
    names = {"image": "{}"} | {part: f"{{}}_{part}" for part in parts}
    return [
        word
        for part, name in names.items()
        for side in ("moving", "fixed")
        for word in (f"--{name.format(side)}", str(folder / forms[part].format(side)))
    ]


def metrics(output: Path) -> dict[str, float]:
    return json.loads((output / "metrics.json").read_text())["metrics"]


def test_labels_and_points_guide_and_are_marked_in_every_output(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words(folder, "label", "points")
    main(["register", *given, f"--output_dir={tmp_path}/out", "--guide=labels,points", "--label_weight=2"])
    printed = capsys.readouterr().out
    found = metrics(tmp_path / "out")
    assert found["guided_dice"] > 0.9 > found["before_dice"] and found["guided_tre_mean"] < 1.0
    assert not {"dice", "hd95", "assd", "tre_mean", "tre_median", "tre_95"} & set(found)
    assert re.search(r"^guided_dice  +0\.9", printed, re.MULTILINE) and not re.search("^dice", printed, re.MULTILINE)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Dice, used as guide" in page and "TRE, mean (mm), used as guide" in page
    settings = json.loads((tmp_path / "out" / "metrics.json").read_text())["settings"]
    assert settings["guides"] == {"labels": 2.0, "points": 1.0}

    pairs = [{part: str(value) for part, value in zip([w[2:] for w in given[::2]], given[1::2], strict=True)}]
    (tmp_path / "pairs.json").write_text(json.dumps({"test": pairs}))
    main(["register", f"--datalist={tmp_path}/pairs.json", f"--output_dir={tmp_path}/all", "--guide=points"])
    table = capsys.readouterr().out
    assert "TRE, mean (mm), used as guide" in table and "| Dice |" in table
    summary = pd.read_csv(tmp_path / "all" / "summary.csv")
    assert {"guided_tre_mean", "before_tre_mean", "dice"} <= set(summary) and "tre_mean" not in summary


def test_labels_that_don_t_guide_are_measured_as_ever(folder: Path, tmp_path: Path) -> None:
    main(["register", *words(folder, "label"), f"--output_dir={tmp_path}/out", "--report=false", "--inverse=false"])
    found = metrics(tmp_path / "out")
    assert "guided_dice" not in found and found["dice"] == pytest.approx(found["before_dice"], abs=0.02)


def test_channels_whose_names_hold_commas(folder: Path, tmp_path: Path) -> None:
    off = ["--report=false", "--inverse=false"]
    given = words(folder, "label", "channels")
    main(["register", *given, f"--output_dir={tmp_path}/out", "--channel_weight=3", *off])
    assert metrics(tmp_path / "out")["dice"] > 0.9
    moving, fixed = (str(folder / f"{side},T2.nii.gz") for side in ("moving", "fixed"))
    pair = {"moving": str(folder / "moving.nii.gz"), "fixed": str(folder / "fixed.nii.gz")}
    pair |= {"moving_channels": [moving], "fixed_channels": [fixed]}
    (tmp_path / "pairs.json").write_text(json.dumps({"test": [pair]}))
    main(["register", f"--datalist={tmp_path}/pairs.json", f"--output_dir={tmp_path}/all", "--channel_weight=3", *off])
    content = json.loads((tmp_path / "all" / "0000_moving_to_fixed" / "metrics.json").read_text())
    assert content["pair"]["moving_channels"] == [moving] and content["settings"]["guides"] == {"channels": 3.0}
    assert split_files(f"{moving},{fixed},none.nii.gz") == [moving, fixed, "none.nii.gz"]
    assert split_files("a.nii.gz,b,c.nii.gz") == ["a.nii.gz", "b", "c.nii.gz"]


def test_what_is_wrong_with_a_guide_is_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (folder / "moving.csv").read_text().splitlines()
    x, *rest = lines[2].split(",")
    lines[2] = ",".join([str(float(x) - 30), *rest])
    (folder / "wrong.csv").write_text("\n".join(lines))
    given = [*words(folder, "points"), f"--moving_points={folder}/wrong.csv"]
    main(["register", *given, f"--output_dir={tmp_path}/out", "--guide=points"])
    said = "landmark 2 still lies "
    assert f"note: {said}" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["notes"][0].startswith(said)
    assert f"Note: {said}" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        ([], ["--guide=labels"], "guide: labels need both moving_label and fixed_label"),
        (["label"], ["--guide=label"], "guide must be labels, points or labels,points, got 'label'"),
        (["label"], ["--guide=labels", "--label_weight=-1"], "the weight of labels as a guide must be a number"),
        (["label"], ["--guide=labels", "--optimizer=affine"], "guides: the affine optimizer takes none"),
        (["label"], ["--guide=labels", "--bundle=fmirnet_chaos", "--refine=0"], "set refine above 0"),
        ([], ["--features=none.pt"], "features: no such file: none.pt"),
        ([], ["--moving_channels={folder}/moving.nii.gz"], "must be as many, got 1 and 0"),
        ([], ["--moving_channels=none.nii.gz", "--fixed_channels=none.nii.gz"], "no such image: none.nii.gz"),
    ],
)
def test_wrong_guides_are_one_line(
    folder: Path, tmp_path: Path, parts: list[str], options: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as end:
        main(
            [
                *("register", *words(folder, *parts), f"--output_dir={tmp_path}/out"),
                *(option.format(folder=folder) for option in options),
            ]
        )
    assert end.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
