"""How two grids differ, in words; a NIfTI's place where only parts of its header are sound."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from fmirnet_monai.spatial import Grid
from fmirnet_monai.spatial.geometry import nifti_affine, nifti_place

AFFINE = np.diag([1.5, 1.2, 2.0, 1.0])
FLIP = np.diag([-1.0, -1.0, 1.0])


def moved(*by: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] += by
    return affine


def test_what_keeps_grids_apart_is_said() -> None:
    grid = Grid((24, 20, 16), AFFINE)
    assert grid.difference(Grid((24, 20, 15), moved(40, 0, 0))) == "it has (24, 20, 16) voxels, not (24, 20, 15)"
    assert grid.difference(Grid((24, 20, 16), moved(-24, 0, 32))) == "its origin lies 40 mm (16 voxels) away"
    wide = Grid((24, 20, 16), np.diag([2.5, 1.2, 2, 1]))
    assert grid.difference(wide) == "its spacing or direction differs, a corner lies 23 mm (15.3 voxels) away"
    assert grid.difference(Grid((24, 20), np.eye(3))) == "it has (24, 20, 16) voxels, not (24, 20)"


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_any_form_of_header(kind: type, order: str, tmp_path: Path) -> None:
    header = kind.header_class(endianness=order)
    image = kind(np.zeros((5, 6, 7), np.int16), None, header)
    image.header.set_qform(moved(3, 4, 5), 1)
    image.header.set_sform(moved(9, 9, 9), 2)
    nib.save(image, tmp_path / "a.nii")
    origin = FLIP @ [3, 4, 5]
    if kind is nib.Nifti1Image:  # ITK reads no other
        np.testing.assert_allclose(sitk.ReadImage(str(tmp_path / "a.nii")).GetOrigin(), origin, atol=1e-5)
    np.testing.assert_allclose(FLIP @ nifti_affine(nib.load(tmp_path / "a.nii").header)[:3, 3], origin, atol=1e-5)
    with pytest.warns(UserWarning, match="taken is the qform"):
        place = nifti_place(tmp_path / "a.nii")
    assert place is not None
    np.testing.assert_allclose(FLIP @ place[:3, 3], origin, atol=1e-5)


def test_without_any_place_it_is_itk_s(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    image = nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), None)
    image.header.set_zooms((1.5, 1.2, 2))
    nib.save(image, tmp_path / "a.nii")
    place, theirs = nifti_place(tmp_path / "a.nii"), sitk.ReadImage(str(tmp_path / "a.nii"))
    assert place is not None
    np.testing.assert_allclose(FLIP @ place[:3, :3], np.diag([1.5, 1.2, 2]), atol=1e-6)
    np.testing.assert_allclose(FLIP @ place[:3, 3], theirs.GetOrigin(), atol=1e-6)
    assert not [w for w in recwarn if "form" in str(w.message)]


def test_a_sheared_sform_alone_is_as_it_stands(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sheared = moved(1, 2, 3)
    sheared[0, 1] = 0.2
    image = nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), None)
    image.header.set_sform(sheared, 1)
    image.header.set_zooms((1.5, 1.2, 2))
    nib.save(image, tmp_path / "a.nii")
    place = nifti_place(tmp_path / "a.nii")
    assert place is not None
    np.testing.assert_allclose(place, sheared, atol=1e-6)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("unit", ["meter", "micron"])
def test_units_are_itk_s_to_read(unit: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    image = nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), moved(1, 2, 3))
    image.header.set_xyzt_units(unit)
    image.header.set_qform(moved(1, 2, 3), 1)
    nib.save(image, tmp_path / "a.nii")
    place, theirs = nifti_place(tmp_path / "a.nii"), sitk.ReadImage(str(tmp_path / "a.nii"))
    assert place is not None
    np.testing.assert_allclose(np.linalg.norm(place[:3, :3], axis=0), theirs.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(FLIP @ place[:3, 3], theirs.GetOrigin(), rtol=1e-6)
    assert not [w for w in recwarn if "form" in str(w.message)]


def test_a_broken_quaternion_is_itk_s_to_read(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), None)
    image.header.set_sform(moved(1, 2, 3), 1)
    image.header.set_zooms((1.5, 1.2, 2))
    image.header["qform_code"], image.header["quatern_b"], image.header["quatern_c"] = 1, 0.9, 0.9
    nib.save(image, tmp_path / "a.nii")
    place = nifti_place(tmp_path / "a.nii")
    assert place is not None
    origin = sitk.ReadImage(str(tmp_path / "a.nii")).GetOrigin()
    np.testing.assert_allclose(FLIP @ place[:3, 3], origin, atol=1e-5)
