"""Displacement fields in files, as every tool writes them, and damaged ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from fmirnet_monai.spatial import DisplacementField, Grid
from fmirnet_monai.spatial.files import read_displacement, write_displacement
from fmirnet_monai.spatial.geometry import nifti_affine

from .conftest import random_field, random_grid, sitk_points, to_sitk, transform_of

SUFFIXES = ["nii.gz", "nii", "mha", "nrrd"]
SHAPES = [(13, 11), (9, 12, 8), (14, 12, 1), (1, 12, 10)]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_simpleitk_s_fields_are_read_in_either_precision(
    shape: tuple[int, ...], suffix: str, dtype: type, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    grid = random_grid(rng, len(shape), shape)
    field = random_field(rng, grid)
    image = sitk.DisplacementFieldTransform(transform_of(field)).GetDisplacementField()
    kind = sitk.sitkVectorFloat32 if dtype is np.float32 else sitk.sitkVectorFloat64
    sitk.WriteImage(sitk.Cast(image, kind), str(tmp_path / f"f.{suffix}"))
    again = read_displacement(tmp_path / f"f.{suffix}")
    assert again.grid.matches(grid)
    torch.testing.assert_close(again.ddf, field.ddf, rtol=0, atol=1e-4)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_written_field_is_this_one_here_and_in_simpleitk(shape: tuple[int, ...], suffix: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    grid = random_grid(rng, len(shape), shape)
    field = random_field(rng, grid)
    file = write_displacement(field, tmp_path / f"f.{suffix}")
    again = read_displacement(file)
    assert again.grid.matches(grid)
    torch.testing.assert_close(again.ddf, field.ddf, rtol=0, atol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == [f"f.{suffix}"]
    image = sitk.ReadImage(str(file), sitk.sitkVectorFloat64)
    assert (image.GetDimension(), image.GetNumberOfComponentsPerPixel()) == (grid.dims, grid.dims)
    points = grid.to_world(rng.uniform(-0.4, np.array(shape) - 0.6, (20, grid.dims)))
    expected = field(torch.from_numpy(points))[0].numpy()
    np.testing.assert_allclose(sitk_points(sitk.DisplacementFieldTransform(image), points), expected, atol=1e-3)


@pytest.mark.parametrize(("intent", "sign"), [(1007, [-1, -1, 1]), (0, [-1, -1, 1]), (1006, [1, 1, 1])])
def test_nibabel_s_fields_mean_what_their_headers_say(intent: int, sign: list[int], tmp_path: Path) -> None:
    vectors = np.tile(np.array([1.0, 2.0, 3.0]), (6, 5, 4, 1, 1))
    image = nib.Nifti1Image(vectors, np.diag([2.0, 1.5, 1.0, 1.0]))
    image.header.set_intent(intent)
    nib.save(image, tmp_path / "f.nii.gz")
    found = read_displacement(tmp_path / "f.nii.gz")
    np.testing.assert_allclose(found.world_vectors()[2, 3, 1], np.array([1.0, 2.0, 3.0]) * sign, atol=1e-6)
    if intent:
        theirs = sitk.ReadImage(str(tmp_path / "f.nii.gz"), sitk.sitkVectorFloat64)
        transform = sitk.DisplacementFieldTransform(theirs)
        point = np.array([[4.0, 3.0, 2.0]])
        np.testing.assert_allclose(found(torch.from_numpy(point))[0], sitk_points(transform, point), atol=1e-5)


@pytest.mark.parametrize(("qform", "sform"), [(1, 2), (2, 1), (1, 0), (0, 1), (2, 2)])
def test_of_two_geometries_itk_s_choice(qform: int, sform: int, tmp_path: Path) -> None:
    one, other = np.diag([1.5, 1.2, 2.0, 1.0]), np.diag([1.5, 1.2, 2.0, 1.0])
    other[:3, 3] = [40, -3, 7]
    image = nib.Nifti1Image(np.zeros((6, 5, 4), np.float32), None)
    image.set_qform(one, qform)
    image.set_sform(other, sform)
    nib.save(image, tmp_path / "image.nii.gz")
    origin = np.array(sitk.ReadImage(str(tmp_path / "image.nii.gz")).GetOrigin()) * [-1, -1, 1]
    np.testing.assert_allclose(nifti_affine(nib.load(tmp_path / "image.nii.gz").header)[:3, 3], origin, atol=1e-4)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_half_a_field_is_refused(suffix: str, tmp_path: Path) -> None:
    field = random_field(np.random.default_rng(2), random_grid(np.random.default_rng(3), 3, (12, 11, 10)))
    file = write_displacement(field, tmp_path / f"f.{suffix}")
    whole = file.read_bytes()
    for share in (0.3, 0.6, 0.95):
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(
            ValueError, match=rf"f\.{suffix.split('.', maxsplit=1)[0]}.*not a displacement field, or damaged"
        ):
            read_displacement(file)
    if suffix == "nii":
        (tmp_path / "f.nii.gz").write_bytes(gzip.compress(whole)[: len(whole) // 4])
        with pytest.raises(ValueError, match="not a displacement field, or damaged"):
            read_displacement(tmp_path / "f.nii.gz")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_counted(suffix: str, value: float, tmp_path: Path) -> None:
    vectors = np.zeros((7, 6, 5, 3), np.float32)
    vectors[2, 3, 1] = value
    vectors[4, 0, 2, 1] = value
    sitk.WriteImage(sitk.GetImageFromArray(vectors, isVector=True), str(tmp_path / f"f.{suffix}"))
    with pytest.raises(ValueError, match=rf"f\.{suffix}: 2 of 210 vectors are NaN or infinite; replace"):
        read_displacement(tmp_path / f"f.{suffix}")


def test_what_is_no_field_is_told_apart(tmp_path: Path) -> None:
    grid = Grid((5, 4), np.eye(3))
    with pytest.raises(FileNotFoundError, match=r"nothing\.mha"):
        read_displacement(tmp_path / "nothing.mha")
    sitk.WriteImage(to_sitk(np.zeros(grid.shape), grid), str(tmp_path / "scalar.mha"))
    with pytest.raises(ValueError, match=r"scalar\.mha: not a displacement field.*2 axes and 1 values"):
        read_displacement(tmp_path / "scalar.mha")
    image = nib.Nifti1Image(np.zeros((5, 4, 3, 3), np.float32), np.eye(4))
    nib.save(image, tmp_path / "volumes.nii.gz")
    with pytest.raises(ValueError, match=r"volumes\.nii\.gz.*\(X, Y, Z, 1, 3\).*shape \(5, 4, 3, 3\)"):
        read_displacement(tmp_path / "volumes.nii.gz")
    image.header.set_intent(2006, allow_unknown=True)
    nib.save(image, tmp_path / "fsl.nii.gz")
    with pytest.raises(ValueError, match="one of FSL"):
        read_displacement(tmp_path / "fsl.nii.gz")
    sheared = Grid((4, 5), np.array([[1.0, 0.5, 0], [0, 1.0, 0], [0, 0, 1.0]]))
    with pytest.raises(ValueError, match="right angles"):
        write_displacement(DisplacementField(torch.zeros(2, 4, 5), sheared), tmp_path / "field.mha")
    assert not (tmp_path / "field.mha").exists()
    with pytest.raises(ValueError, match="unknown suffix"):
        write_displacement(DisplacementField.identity(grid), tmp_path / "field.txt")
