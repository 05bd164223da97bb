"""Transforms of AFNI against a case by hand, nitransforms, and files made for the tool."""

from __future__ import annotations

import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nitransforms.io.afni import AFNIDisplacementsField, AFNILinearTransform

from fmirnet_monai.spatial import Affine, DisplacementField, Grid
from fmirnet_monai.spatial.itk import read_transform, write_transform

from .conftest import random_affine, random_field
from .tools import FILES, image, moved, tilted_grid, tool_grid, within

HEAD = "# 3dAllineate matrices (DICOM-to-DICOM, row-by-row):\n"
SAID = "AFNI leaves out how oblique images are turned"
PLUMB = Grid((6, 7, 8), np.array([[-2.0, 0, 0, 5], [0, 0, 1.5, -4], [0, 3.0, 0, 2], [0, 0, 0, 1]]))


@pytest.mark.parametrize(
    "text", ["1 0 0 1 0 1 0 2 0 0 1 3\n", HEAD + " 1 0 0 1 0 1 0 2 0 0 1 3\n", "1 0 0 1\n0 1 0 2\n0 0 1 3\n"]
)
@pytest.mark.parametrize("name", ["a.aff12.1D", "a.1D", "a.txt"])
def test_a_shift_by_hand(name: str, text: str, tmp_path: Path) -> None:
    """Base to source by 1 mm to the left, 2 to the back, 3 up: in RAS+ by (-1, -2, 3)."""
    (tmp_path / name).write_text(text)
    point = np.array([[10.0, 20, 30]])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        known = read_transform(tmp_path / name, PLUMB, PLUMB)
    with pytest.warns(UserWarning, match=SAID):
        unknown = read_transform(tmp_path / name)
    for found in (known, unknown):
        np.testing.assert_allclose(moved(found, point), [[9.0, 18, 33]], atol=1e-12)


def test_an_oblique_image_by_hand(tmp_path: Path) -> None:
    """AFNI takes a base that is turned by 30 degrees to lie straight: where no matrix moves it, its voxels are those of
    a source of the same size that does lie straight, from the same first voxel on."""
    turned, angle = PLUMB.affine.copy(), np.deg2rad(30)
    turned[:3, :3] = (
        np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        @ PLUMB.affine[:3, :3]
    )
    base = Grid(PLUMB.shape, turned)
    (tmp_path / "a.1D").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    found = moved(read_transform(tmp_path / "a.1D", moving=PLUMB, fixed=base), base.points())
    np.testing.assert_allclose(found, PLUMB.points(), atol=1e-12)
    back = moved(read_transform(tmp_path / "a.1D", moving=base, fixed=PLUMB), PLUMB.points())
    np.testing.assert_allclose(back, base.points(), atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_matrices_as_nitransforms_has_them(seed: int, tmp_path: Path) -> None:
    """Which prints six digits."""
    rng = np.random.default_rng(seed)
    moving, fixed = tilted_grid(rng), tilted_grid(rng)
    truth, points = random_affine(rng, 3, fixed), within(fixed)
    path = write_transform(truth, tmp_path / "a.aff12.1D", form="afni", moving=moving, fixed=fixed)
    theirs = AFNILinearTransform.from_filename(path).to_ras(moving=image(moving), reference=image(fixed))
    np.testing.assert_allclose(moved(Affine(theirs), points), moved(truth, points), atol=1e-3)
    np.testing.assert_allclose(moved(read_transform(path, moving, fixed), points), moved(truth, points), atol=1e-9)
    AFNILinearTransform.from_ras(truth.matrix, image(moving), image(fixed)).to_filename(tmp_path / "theirs.1D")
    again = read_transform(tmp_path / "theirs.1D", moving, fixed)
    np.testing.assert_allclose(moved(again, points), moved(truth, points), atol=2e-3)


@pytest.mark.parametrize("orientation", ["RAS", "LAS", "LPS"])
def test_files_made_for_the_tool(orientation: str) -> None:
    grid = tool_grid(orientation)
    found = read_transform(FILES / f"affine-{orientation}.afni", grid, grid)
    expected = read_transform(FILES / f"affine-{orientation}.itk.tfm")
    np.testing.assert_allclose(moved(found, within(grid)), moved(expected, within(grid)), atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_fields_as_nitransforms_has_them(seed: int, tmp_path: Path) -> None:
    """On images that are not oblique, the only ones of which it has them."""
    rng = np.random.default_rng(seed)
    moving, fixed = tilted_grid(rng, 0.0), tilted_grid(rng, 0.0)
    truth = random_field(rng, fixed)
    path = write_transform(truth, tmp_path / "warp.nii.gz", form="afni", moving=moving)
    theirs = AFNIDisplacementsField.from_image(nib.load(path))
    np.testing.assert_allclose(np.asarray(theirs.dataobj), truth.world_vectors(), atol=1e-4)
    found = read_transform(path, moving)
    assert isinstance(found, DisplacementField)
    np.testing.assert_allclose(found.ddf, truth.ddf, atol=1e-4)


@pytest.mark.parametrize("extension", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_fields_of_oblique_images_are_affine_where_matrices_are(seed: int, extension: bool, tmp_path: Path) -> None:
    """An affine map as a field leads where its matrix leads, through AFNI's header or what is noted here."""
    rng = np.random.default_rng(seed)
    moving, fixed = tilted_grid(rng), tilted_grid(rng)
    truth = random_affine(rng, 3, fixed)
    path = write_transform(truth, tmp_path / "warp.nii", fixed, form="afni", moving=moving)
    stored = nib.load(path)
    vectors = np.asarray(stored.dataobj)[:, :, :, 0] * [-1, -1, 1]
    matrix = AFNILinearTransform.from_ras(truth.matrix, image(moving), image(fixed)).to_ras()  # as of straight images
    straight = AFNILinearTransform().to_ras(reference=image(fixed))  # AFNI's place of the base is not the base's own
    places = moved(Affine(straight), fixed.points())
    expected = moved(Affine(matrix), places) - places
    np.testing.assert_allclose(vectors.reshape(-1, 3), expected, atol=2e-3)
    if extension:
        stored.header.set_intent("none")
        stored.header.extensions.append(nib.nifti1.Nifti1Extension("afni", b"<AFNI_attributes />"))
        nib.save(stored, path := tmp_path / "theirs.nii")
    found = read_transform(path, moving)
    np.testing.assert_allclose(moved(found, fixed.points()), moved(truth, fixed.points()), atol=1e-3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 2 3\n", "it has 3 numbers where 12 belong"),
        ("1 0 0 1 0 1 0 2 0 0 1 3\n" * 2, "it holds 2 matrices, of a series"),
        ("# x-shift y-shift z-shift z-angle\n1 0 0 1 0 1 0 2 0 0 1 3\n", "holds parameters, .* -1Dmatrix_save"),
        ("1 0 0 1 0 1 0 2 0 0 1 inf\n", "not finite"),
        ("1 0 0 1 0 1 0 2 0 0 1 x\n", "could not convert"),
    ],
)
def test_what_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.1D").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.1D: can't be read as a transform of AFNI: .*{said}"):
        read_transform(tmp_path / "a.1D")
