"""Pairs that the user names: found by pattern or table, whole or cut into slices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from fmirnet_monai.cli import main
from fmirnet_monai.data import load_pairs, match_pairs, read_image, read_label, write_image


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Ten subjects with an image and a label at each of two times; the label's slices grow from 0 to 5 voxels."""
    folder = tmp_path / "source"
    for number in range(1, 11):
        for offset, time in enumerate(("ED", "ES")):
            image = torch.arange(6 * 5 * 4).reshape(1, 6, 5, 4) + 100 * number + offset
            label = torch.zeros(1, 6, 5, 4, dtype=torch.int32)
            for k in range(4):
                label[0, : 2 * k, 0, k] = 2
            write_image(MetaTensor(image), folder / f"p{number}_{time}.nii.gz")
            write_image(MetaTensor(label), folder / f"p{number}_{time}_gt.nii.gz")
    return folder


def prepare(source: Path, *options: str) -> Path:
    output = source.parent / "out"
    names = {"moving": "*_ED.nii.gz", "fixed": "*_ES.nii.gz", "moving_label": "*_ED_gt.nii.gz"}
    names |= {"fixed_label": "*_ES_gt.nii.gz", "source_dir": str(source), "output_dir": str(output)}
    main(["prepare", "pairs", *[word for k, v in names.items() for word in (f"--{k}", v)], *options])
    return output / "datalist.json"


def test_volumes_are_named_where_they_are(source: Path) -> None:
    datalist = prepare(source)
    sections = json.loads(datalist.read_text())
    assert [len(sections[s]) for s in ("training", "validation", "test")] == [7, 2, 1]
    pair = load_pairs(datalist, "test")[0]
    number = pair["subject"]
    assert {key: Path(pair[key]) for key in ("moving", "fixed", "moving_label", "fixed_label")} == {
        "moving": source / f"{number}_ED.nii.gz",
        "fixed": source / f"{number}_ES.nii.gz",
        "moving_label": source / f"{number}_ED_gt.nii.gz",
        "fixed_label": source / f"{number}_ES_gt.nii.gz",
    }


def test_slices_of_one_number_are_paired(source: Path) -> None:
    datalist = prepare(source, "--spatial_dims", "2", "--min_label_area", "3", "--fractions", "0.5,0.3,0.2")
    pairs = load_pairs(datalist, "validation")
    assert len(pairs) == 3 * 2 and [pair["slice"] for pair in pairs] == [2, 3] * 3
    for pair in pairs:
        moving, fixed = (np.asarray(read_image(pair[key])) for key in ("moving", "fixed"))
        assert np.array_equal(fixed, moving + 1)
        assert (np.asarray(read_label(pair["moving_label"])) == 2).sum() == 2 * pair["slice"]


def test_table_with_paths_of_its_own(source: Path) -> None:
    (source / "t.csv").write_text("moving,fixed,subject\np1_ED.nii.gz,p1_ES.nii.gz,a\np2_ED.nii.gz,p2_ES.nii.gz,b\n")
    output = source.parent / "out"
    main(
        ["prepare", "pairs", "--table", str(source / "t.csv"), "--output_dir", str(output), "--fractions", "0.5,0.5,0"]
    )
    datalist = output / "datalist.json"
    subjects = {load_pairs(datalist, section)[0]["subject"] for section in ("training", "validation")}
    assert subjects == {"a", "b"} and "moving_label" not in load_pairs(datalist, "training")[0]


def test_several_pairs_of_one_subject_keep_their_images_apart(source: Path) -> None:
    rows = [["moving", "fixed", "moving_label", "subject"]]
    rows += [[f"p{n}_ED.nii.gz", f"p{n}_ES.nii.gz", f"p{n}_ED_gt.nii.gz", "one" if n < 3 else "two"] for n in (1, 2, 3)]
    (source / "pairs.csv").write_text("\n".join(",".join(row) for row in rows))
    words = [f"--table={source}/pairs.csv", f"--output_dir={source}/cut", "--spatial_dims=2", "--fractions=1,0,0"]
    main(["prepare", "pairs", *words, "--min_label_area=1"])
    pairs = load_pairs(source / "cut" / "datalist.json", "training")
    assert len({pair["moving"] for pair in pairs}) == len(pairs) == 9
    assert [int(np.asarray(read_image(pair["moving"])).min()) // 100 for pair in pairs] == [1] * 3 + [2] * 3 + [3] * 3
    assert all("moving_label" in pair and "fixed_label" not in pair for pair in pairs)


def test_an_atlas_is_paired_with_every_subject_but_itself(source: Path) -> None:
    atlas = {"moving": "p1_ED.nii.gz", "moving_label": "p1_ED_gt.nii.gz"}
    pairs = match_pairs(source, {**atlas, "fixed": "*_ED.nii.gz", "fixed_label": "*_ED_gt.nii.gz"})
    assert [pair["subject"] for pair in pairs] == [f"p{number}" for number in range(2, 11)]
    for pair in pairs:
        names = {key: Path(path).name for key, path in pair.items() if key != "subject"}
        fixed = f"{pair['subject']}_ED"
        assert names == {**atlas, "fixed": f"{fixed}.nii.gz", "fixed_label": f"{fixed}_gt.nii.gz"}
    with pytest.raises(FileNotFoundError, match=r"moving: no such file: .*p0.nii.gz; a pattern has one '\*'"):
        match_pairs(source, {"moving": "p0.nii.gz", "fixed": "*_ED.nii.gz"})
    with pytest.raises(ValueError, match=r"one of the patterns needs a '\*'"):
        match_pairs(source, {"moving": "p1_ED.nii.gz", "fixed": "p1_ES.nii.gz"})


def test_wrong_input_is_named(source: Path, capsys: pytest.CaptureFixture) -> None:
    (source / "p3_ES.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"fixed: 1 of 10 subjects have no file .* the first p3"):
        match_pairs(source, {"moving": "*_ED.nii.gz", "fixed": "*_ES.nii.gz"})
    with pytest.raises(FileNotFoundError, match="moving: nothing in"):
        match_pairs(source, {"moving": "*_XX.nii.gz", "fixed": "*_ES.nii.gz"})
    (source / "p3_ED.nii.gz").unlink()
    for slices, area, message in (
        (4, "900", "lower it"),
        (7, "0", "p1_ES_gt.nii.gz: its grid is not that of p1_ES.nii.gz"),
    ):
        write_image(MetaTensor(torch.rand(1, 6, 5, slices)), source / "p1_ES.nii.gz")
        with pytest.raises(SystemExit):
            prepare(source, "--spatial_dims", "2", "--min_label_area", area)
        assert message in capsys.readouterr().err
        assert not (source.parent / "out" / "datalist.json").exists()
