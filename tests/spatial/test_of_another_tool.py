"""Transforms of other tools are told by name, with a way to bring them here."""

from __future__ import annotations

from pathlib import Path

import pytest

from fmirnet_monai.spatial.itk import read_transform

FSL = "0.99 0.01 0 -3.5\n-0.01 0.99  0  2e-1\n0 0 1 4\n0 0 0 1  \n"
LTA = """type      = 1 # LINEAR_RAS_TO_RAS
nxforms   = 1
mean      = 0.0000 0.0000 0.0000
sigma     = 1.0000
1 4 4
1.0 0.0 0.0 -2.5
0.0 1.0 0.0 1.0
0.0 0.0 1.0 0.0
0.0 0.0 0.0 1.0
src volume info
valid = 1  # volume info valid
"""
ELASTIX = (
    '(FixedImageDimension 3)\n(Transform "BSplineTransform")\n(NumberOfParameters 4)\n(TransformParameters 0 0 0 0)\n'
)
AFNI = "# 3dvolreg matrices (DICOM-to-DICOM, row-by-row):\n 1 0 0 -2.5 0 1 0 3 0 0 1 0.5\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("flirt.mat", FSL, r"is a matrix of FSL, .* c3d_affine_tool .* -fsl2ras -oitk OUT\.tfm"),
        ("flirt.txt", FSL, "is a matrix of FSL"),
        ("flirt.xfm.1", FSL.replace("0 0 0 1", "0.000 0.000 0.000 1.000"), "is a matrix of FSL"),
        ("a.lta", LTA, "is a transform of FreeSurfer; convert it: lta_convert --inlta"),
        ("a.txt", LTA, "is a transform of FreeSurfer"),
        ("TransformParameters.0.txt", ELASTIX, "is a transform of elastix; write its field by transformix -def all"),
        ("a.aff12.1D", AFNI, "is an affine transform of AFNI"),
        ("a.txt", "nothing of the kind\n", "not a transform, or damaged"),
        ("a.1D", "1 2 3\n", "not a displacement field, or damaged"),
    ],
)
def test_what_it_is_and_how_to_bring_it_here(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}: {said}"):
        read_transform(tmp_path / name)
