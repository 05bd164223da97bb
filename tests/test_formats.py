"""What is an image, by the names of the files in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from fmirnet_monai.formats import image_files, stem


@pytest.mark.parametrize(
    ("pattern", "files", "found"),
    [
        ("image_*", ["image_0.mhd", "image_0.raw", "image_0.zraw"], {"0": "image_0.mhd"}),
        ("image_*", ["image_0.nhdr", "image_0.raw.gz"], {"0": "image_0.nhdr"}),
        ("image_*", ["image_0.hdr", "image_0.img"], {"0": "image_0.hdr"}),
        ("image_*", ["image_0.IMG", "image_0.hdr", "image_1.img"], {"0": "image_0.hdr", "1": "image_1.img"}),
        (
            "image_*",
            ["image_a.NII.GZ", "image_a.json", "image_b.Nrrd", "image_b.txt"],
            {"a": "a.NII.GZ", "b": "b.Nrrd"},
        ),
        ("image_*", ["image_0.seg.nrrd", "image_1.5.dcm"], {"0": "image_0.seg.nrrd", "1.5": "image_1.5.dcm"}),
        ("image_*", ["image_1.5/slice", "image_2/slice"], {"1.5": "image_1.5", "2": "image_2"}),
        ("*.nii.gz", ["a.nii.gz", "b.NII.GZ", "c.nii", "c.mha", ".d.nii.gz"], {"a": "a.nii.gz", "b": "b.NII.GZ"}),
        ("*_T1.MHA", ["a_T1.mha", "b_t1.mha"], {"a": "a_T1.mha"}),
        ("*.img", ["a.hdr", "a.img"], {"a": "a.img"}),
        ("sub-*/anat/T1.nii.gz", ["sub-1/anat/T1.nii.gz", "sub-2/anat/T2.nii.gz"], {"1": "T1.nii.gz"}),
        ("*_LM.vtk", ["a_LM.vtk", "a.mha", "b_lm.VTK", "c_LM.csv"], {"a": "a_LM.vtk"}),
        ("sub-*/anat", ["sub-1/anat/slice", "sub-2/other"], {"1": "anat"}),
    ],
)
def test_files_of_a_pattern(tmp_path: Path, pattern: str, files: Sequence[str], found: dict[str, str]) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    named = {subject: path.name for subject, path in image_files(tmp_path, pattern).items()}
    assert named.keys() == found.keys() and all(named[subject].endswith(name) for subject, name in found.items())


@pytest.mark.parametrize("second", ["image_0.nii", "image_0.NII.GZ", "image_0.img"])
def test_two_images_of_one_name(tmp_path: Path, second: str) -> None:
    for file in ("image_0.nii.gz", second):
        (tmp_path / file).touch()
    with pytest.raises(ValueError, match=r"image_0\..* and image_0\..* both stand for '0'; give a narrower pattern"):
        image_files(tmp_path, "image_*")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a/b.nii.gz", "b"), ("1.2.NII", "1.2"), ("x.seg.nrrd", "x"), ("scan.v2", "scan.v2"), ("c.json", "c.json")],
)
def test_stem(name: str, expected: str) -> None:
    assert stem(name) == expected
