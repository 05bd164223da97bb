"""Transforms of other tools are told by what they hold, whatever they are called."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from fmirnet_monai.spatial import Affine, DisplacementField, Grid
from fmirnet_monai.spatial.itk import read_transform, write_transform

FSL = "1 0 0 -3.5\n0 1  0  -2e-1\n0 0 1 4\n0.000 0.000 0.000 1.000  \n"
AFNI = "# 3dvolreg matrices (DICOM-to-DICOM, row-by-row):\n 1 0 0 3.5 0 1 0 -0.2 0 0 1 -4\n"
LTA = (
    "type      = 1 # LINEAR_RAS_TO_RAS\nnxforms   = 1\nmean      = 0 0 0\nsigma     = 1\n1 4 4\n"
    "1 0 0 3.5\n0 1 0 -0.2\n0 0 1 4\n0 0 0 1\nsrc volume info\nvalid = 0  # volume info invalid\n"
)
ELASTIX = (
    '(FixedImageDimension 3)\n(MovingImageDimension 3)\n(Transform "TranslationTransform")\n(NumberOfParameters 3)\n'
    "(TransformParameters 3.5 -0.2 -4)\n"
)
GRID = Grid((5, 6, 7), np.diag([-1.0, 1, 1, 1]))  # radiological: FSL's x is from right to left, as its voxels


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("flirt.mat", FSL),
        ("flirt.txt", FSL),
        ("flirt.txt", FSL.replace("\n", "\n\n")),
        ("MAT_0000", FSL),
        ("flirt.xfm.1", FSL),
        ("a.lta", LTA),
        ("A.LTA", LTA),
        ("a.txt", LTA),
        ("TransformParameters.0.txt", ELASTIX),
        ("result.tfm", ELASTIX),
        ("a.aff12.1D", AFNI),
        ("a.txt", AFNI),
    ],
)
def test_what_it_is(name: str, text: str, tmp_path: Path) -> None:
    """All of them shift by 3.5 mm to the left, 0.2 to the front and 4 down, each in its own way."""
    (tmp_path / name).write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = read_transform(tmp_path / name, GRID, GRID)
    assert isinstance(found, Affine)
    np.testing.assert_allclose(found.matrix[:3], [[1, 0, 0, -3.5], [0, 1, 0, 0.2], [0, 0, 1, -4]], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "nothing of the kind\n", "not a transform, or damaged"),
        ("a.txt", "1 2 3\n", "not a transform, or damaged"),
        ("a.txt", FSL.replace("1.000", "2.000"), "not a transform, or damaged"),
        ("a.lta", "nothing of the kind\n", "can't be read as a transform of FreeSurfer: it states no 'type'"),
        ("a.1D", "", "can't be read as a transform of AFNI: it has 0 numbers"),
        ("t.txt", ELASTIX.replace("(TransformParameters 3.5 -0.2 -4)\n", ""), "of elastix: .* has 0 parameters"),
        ("t.txt", "// of elastix\n\n(GridSize 4 4 4)\n", "of elastix: it states no FixedImageDimension"),
        ("t.txt", ELASTIX + "(Transform)\n", "of elastix: its line .* not the only one of its name"),
    ],
)
def test_what_it_is_not(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}: .*{said}"):
        read_transform(tmp_path / name)


def test_a_matrix_longer_than_any(tmp_path: Path) -> None:
    (tmp_path / "a.lta").write_text(LTA + "#" * (1 << 20))
    with pytest.raises(ValueError, match="it is longer than 1048576 bytes"):
        read_transform(tmp_path / "a.lta")


@pytest.mark.parametrize("form", ["fsl", "afni"])
def test_values_that_are_not_finite_are_refused(form: str, tmp_path: Path) -> None:
    ddf = torch.zeros(3, *GRID.shape)
    ddf[1, 2, 3, 4] = torch.nan
    path = write_transform(DisplacementField(ddf, GRID), tmp_path / "a.nii.gz", form=form, moving=GRID)
    with pytest.raises(ValueError, match=r"a\.nii\.gz: 1 of its vectors are NaN or infinite"):
        read_transform(path, GRID)


@pytest.mark.parametrize("form", ["fsl", "afni"])
def test_images_of_two_axes_are_refused(form: str, tmp_path: Path) -> None:
    flat = Grid((5, 6), np.eye(3))
    path = write_transform(DisplacementField.identity(GRID), tmp_path / "a.nii", form=form, moving=GRID)
    with pytest.raises(ValueError, match="it is of volumes, the moving image has 2 axes"):
        read_transform(path, flat)
    with pytest.raises(ValueError, match=f"--format {form} holds maps of volumes"):
        write_transform(DisplacementField.identity(flat), tmp_path / "b.nii", form=form, moving=GRID)


@pytest.mark.parametrize(("form", "name"), [("fsl", "a.mat"), ("lta", "a.lta")])
def test_a_map_without_a_way_back_is_refused_by_what_holds_that(form: str, name: str, tmp_path: Path) -> None:
    flat = Affine(np.diag([0.0, 1, 1, 1]))
    with pytest.raises(ValueError, match=rf"{name}: --format {form} holds the map back, and this one has none"):
        write_transform(flat, tmp_path / name, form=form, moving=GRID, fixed=GRID)
    assert not [*tmp_path.iterdir()]


def test_an_unknown_form_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format must be one of itk, fsl, lta, afni, got 'spm'"):
        write_transform(Affine.identity(3), tmp_path / "a.mat", form="spm")
