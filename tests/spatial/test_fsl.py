"""Transforms of FSL against a case by hand, FSL's own fslpy, nitransforms, and files of the tool."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fsl.data.image import Image
from fsl.transform import flirt, fnirt
from nitransforms.io.fsl import FSLLinearTransform

from fmirnet_monai.spatial import Affine, DisplacementField, Grid
from fmirnet_monai.spatial.itk import read_transform, write_transform

from .conftest import random_affine, random_field, random_grid
from .tools import FILES, image, moved, tool_grid, within


def pairs() -> list[tuple[Grid, Grid]]:
    """Moving and fixed, radiological and neurological in all combinations."""
    found: dict[tuple[bool, bool], tuple[Grid, Grid]] = {}
    rng = np.random.default_rng(0)
    while len(found) < 4:
        two = random_grid(rng, 3), random_grid(rng, 3)
        found[np.linalg.det(two[0].affine) > 0, np.linalg.det(two[1].affine) > 0] = two
    return list(found.values())


def test_a_matrix_by_hand(tmp_path: Path) -> None:
    """Fixed: 10 voxels of 2 mm from left to right, so FSL counts them from the right. Moving: 8 of 3 mm from right to
    left, as FSL counts. The matrix adds 4 mm to x, -2 to y and 1 to z on the way from moving to fixed."""
    fixed = Grid((10, 12, 14), np.array([[2.0, 0, 0, -5], [0, 2, 0, 7], [0, 0, 2, 1], [0, 0, 0, 1]]))
    moving = Grid((8, 9, 9), np.array([[-3.0, 0, 0, 20], [0, 3, 0, -4], [0, 0, 3, 2], [0, 0, 0, 1]]))
    (tmp_path / "a.mat").write_text("1 0 0 4\n0 1 0 -2\n0 0 1 1\n0 0 0 1\n")
    found = read_transform(tmp_path / "a.mat", moving, fixed)
    # voxel (6, 3, 5) is (9 - 6) * 2 = 6, 6, 10 in FSL's mm; 2, 8, 9 there in moving, which is voxel (2/3, 8/3, 3)
    start, end = np.array([2.0 * 6 - 5, 2 * 3 + 7, 2 * 5 + 1]), np.array([20 - 2.0, 8 - 4, 9 + 2])
    np.testing.assert_allclose(moved(found, start[None]), end[None], atol=1e-12)


@pytest.mark.parametrize("number", range(4))
def test_matrices_as_fslpy_and_nitransforms_have_them(number: int, tmp_path: Path) -> None:
    moving, fixed = pairs()[number]
    truth = random_affine(np.random.default_rng(number), 3, fixed)
    path = write_transform(truth, tmp_path / "a.mat", form="fsl", moving=moving, fixed=fixed)
    source, reference = Image(image(moving)), Image(image(fixed))
    points = within(fixed)
    forward = flirt.fromFlirt(flirt.readFlirt(path), source, reference, "world", "world")
    np.testing.assert_allclose(moved(truth, points), moved(Affine(np.linalg.inv(forward)), points), atol=1e-4)
    theirs = FSLLinearTransform.from_filename(path).to_ras(moving=image(moving), reference=image(fixed))
    np.testing.assert_allclose(moved(truth, points), moved(Affine(theirs), points), atol=1e-4)
    again = read_transform(path, moving, fixed)
    np.testing.assert_allclose(moved(truth, points), moved(again, points), atol=1e-9)
    flirt.writeFlirt(flirt.toFlirt(forward, source, reference, "world", "world"), tmp_path / "theirs.mat")
    np.testing.assert_allclose(
        moved(read_transform(tmp_path / "theirs.mat", moving, fixed), points), moved(truth, points), atol=1e-4
    )


@pytest.mark.parametrize("orientation", ["RAS", "LAS", "LPS"])
def test_files_of_the_tool(orientation: str) -> None:
    """They have six digits."""
    grid = tool_grid(orientation)
    points = within(grid)
    expected = moved(read_transform(FILES / f"affine-{orientation}.itk.tfm"), points)
    found = moved(read_transform(FILES / f"affine-{orientation}.fsl", grid, grid), points)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("kind", ["relative", "absolute"])
def test_fields_as_fslpy_has_them(kind: str, number: int, tmp_path: Path) -> None:
    """Written here and applied by fslpy; made absolute by fslpy and read here."""
    moving, fixed = pairs()[number]
    truth = random_field(np.random.default_rng(number), fixed)
    whole = truth.then(random_affine(np.random.default_rng(number), 3, fixed))
    path = write_transform(whole, tmp_path / "warp.nii.gz", fixed, "fsl", moving)
    source, reference = Image(image(moving)), Image(image(fixed))
    theirs = fnirt.readFnirt(str(path), source, reference)
    assert theirs.deformationType == "relative" and theirs.intent == 2006
    points = fixed.points()[::37]
    expected = moved(whole, points)
    np.testing.assert_allclose(theirs.transform(points, "world", "world"), expected, atol=1e-3)
    if kind == "absolute":
        from fsl.transform.nonlinear import convertDeformationType

        stored = image(fixed)
        stored = nib.Nifti1Image(convertDeformationType(theirs, "absolute").astype(np.float32), None, stored.header)
        stored.header.set_intent(2006)
        nib.save(stored, path)
    found = read_transform(path, moving)
    assert isinstance(found, DisplacementField) and found.grid.matches(fixed)
    np.testing.assert_allclose(moved(found, points), expected, atol=1e-3)


def test_what_fsl_needs_is_asked_for(tmp_path: Path) -> None:
    grid = pairs()[0][0]
    (tmp_path / "a.mat").write_text("1 0 0 4\n0 1 0 -2\n0 0 1 1\n0 0 0 1\n")
    for images in ((), (grid,), (None, grid)):
        with pytest.raises(ValueError, match=r"a\.mat: is a matrix of 4 x 4 numbers.* by --moving and --fixed"):
            read_transform(tmp_path / "a.mat", *images)
    with pytest.raises(ValueError, match=r"b\.mat: --format fsl .* name --moving\."):
        write_transform(Affine.identity(3), tmp_path / "b.mat", form="fsl", fixed=grid)
    path = write_transform(DisplacementField.identity(grid), tmp_path / "f.nii.gz", form="fsl", moving=grid)
    with pytest.raises(ValueError, match=r"f\.nii\.gz: is a field of FSL, .* --moving"):
        read_transform(path)
    stored = nib.load(path)
    stored.header["intent_code"] = 2007
    nib.save(stored, tmp_path / "coefficients.nii.gz")
    with pytest.raises(ValueError, match=r"coefficients\.nii\.gz: holds coefficients .* fnirtfileutils .*--withaff"):
        read_transform(tmp_path / "coefficients.nii.gz", grid)
    with pytest.raises(ValueError, match=r"b\.mat: \.mat holds an affine transform, this one is none"):
        write_transform(DisplacementField.identity(grid), tmp_path / "b.mat", form="fsl", moving=grid, fixed=grid)
    with pytest.raises(ValueError, match=r"b\.mat: --format fsl holds maps of volumes"):
        write_transform(Affine.identity(2), tmp_path / "b.mat", form="fsl", moving=grid, fixed=grid)
    assert not (tmp_path / "b.mat").exists()
