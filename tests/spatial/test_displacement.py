"""Fields with a grid against SimpleITK and ITK: oblique, flipped, anisotropic images in 2-D and 3-D."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from fmirnet_monai.spatial import DisplacementField, Grid
from fmirnet_monai.spatial.itk import read_displacement, write_displacement

FLIP = {2: np.diag([-1.0, -1.0]), 3: np.diag([-1.0, -1.0, 1.0])}


def rotation(dims: int, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    if dims == 2:
        return np.array([[c, -s], [s, c]])
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return turn @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def grid(dims: int, kind: str) -> Grid:
    shape = (23, 17, 13)[:dims]
    spacing = np.array([1.3, 0.7, 2.9])[:dims]
    axes = {"plain": np.eye(dims), "flipped": np.diag([-1.0, 1.0, -1.0][:dims]), "oblique": rotation(dims, 0.4)}[kind]
    affine = np.eye(dims + 1)
    affine[:-1, :-1] = axes * spacing
    affine[:-1, -1] = np.array([-12.5, 7.25, 31.0])[:dims]
    return Grid(shape, affine)


def centred(where: Grid, on: Grid) -> Grid:
    """The same grid moved so that both centres lie at one point, nearly."""
    middles = [g.to_world([(np.array(g.shape) - 1) / 2])[0] for g in (where, on)]
    affine = where.affine.copy()
    affine[:-1, -1] += middles[1] - middles[0] + 0.3
    return Grid(where.shape, affine)


def smooth(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return gaussian_filter(rng.normal(0, 1, shape), [0] + [2.5] * (len(shape) - 1)) if shape else np.zeros(())


def random_field(where: Grid, size: float = 1.5) -> DisplacementField:
    values = smooth(np.random.default_rng(1), where.dims, *where.shape)
    return DisplacementField(torch.from_numpy(values / np.abs(values).max() * size).float(), where)


def to_sitk(array: np.ndarray, where: Grid) -> sitk.Image:
    image = sitk.GetImageFromArray(array.T.astype(np.float64))
    lps = FLIP[where.dims] @ where.affine[:-1]
    image.SetSpacing(where.spacing.tolist())
    image.SetOrigin(lps[:, -1].tolist())
    image.SetDirection((lps[:, :-1] / where.spacing).ravel().tolist())
    return image


CASES = [(d, k) for d in (2, 3) for k in ("plain", "flipped", "oblique")]


@pytest.mark.parametrize("suffix", ["nii.gz", "mha", "nrrd"])
@pytest.mark.parametrize(("dims", "kind"), CASES)
def test_image_warped_here_equals_simpleitk_with_the_saved_transform(
    dims: int, kind: str, suffix: str, tmp_path: Path
) -> None:
    fixed, moving = grid(dims, kind), grid(dims, "oblique")
    moving = centred(Grid(tuple(n + 4 for n in moving.shape), moving.affine), fixed)
    field = random_field(fixed)
    image = smooth(np.random.default_rng(2), 1, *moving.shape)
    file = write_displacement(field, tmp_path / f"field.{suffix}")
    transform = sitk.DisplacementFieldTransform(sitk.ReadImage(str(file), sitk.sitkVectorFloat64))
    reference = to_sitk(np.zeros(fixed.shape), fixed)
    expected = sitk.GetArrayFromImage(sitk.Resample(to_sitk(image[0], moving), reference, transform, sitk.sitkLinear)).T
    ours = field.warp(torch.from_numpy(image), moving)[0].numpy()
    inside = sitk.GetArrayFromImage(
        sitk.Resample(to_sitk(np.ones(moving.shape), moving), reference, transform, sitk.sitkLinear)
    ).T
    core = inside > 0.999
    assert core.mean() > 0.5
    np.testing.assert_allclose(ours[core], expected[core], atol=2e-4 * np.abs(image).max())


@pytest.mark.parametrize(("dims", "kind"), CASES)
def test_points_go_where_simpleitk_sends_them(dims: int, kind: str, tmp_path: Path) -> None:
    field = random_field(grid(dims, kind))
    file = write_displacement(field, tmp_path / "field.mha")
    transform = sitk.DisplacementFieldTransform(sitk.ReadImage(str(file), sitk.sitkVectorFloat64))
    voxels = np.random.default_rng(3).uniform(1, np.array(field.grid.shape) - 2, (20, dims))
    points = field.grid.to_world(voxels)
    expected = [FLIP[dims] @ transform.TransformPoint((FLIP[dims] @ p).tolist()) for p in points]
    np.testing.assert_allclose(field.map_points(points), expected, atol=1e-4)


@pytest.mark.parametrize("suffix", ["nii.gz", "mha", "nrrd"])
@pytest.mark.parametrize(("dims", "kind"), CASES)
def test_written_field_is_read_back(dims: int, kind: str, suffix: str, tmp_path: Path) -> None:
    field = random_field(grid(dims, kind))
    again = read_displacement(write_displacement(field, tmp_path / f"field.{suffix}"))
    assert again.grid.matches(field.grid, 1e-3)
    torch.testing.assert_close(again.ddf, field.ddf, rtol=0, atol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == [f"field.{suffix}"]


@pytest.mark.parametrize(("dims", "kind"), CASES)
def test_inverse_brings_points_back_and_says_how_well(dims: int, kind: str) -> None:
    field = random_field(grid(dims, kind))
    inverse, residual = field.invert()
    assert residual <= 0.01
    points = field.grid.to_world(np.random.default_rng(4).uniform(3, np.array(field.grid.shape) - 4, (30, dims)))
    back = inverse.map_points(field.map_points(points))
    assert np.abs(field.grid.to_voxel(back) - field.grid.to_voxel(points)).max() < 0.15  # linear between voxels


def test_inverse_of_a_known_field() -> None:
    where = grid(3, "oblique")
    shift = torch.tensor([1.5, -0.5, 0.25])
    inverse, residual = DisplacementField(shift.reshape(3, 1, 1, 1).expand(3, *where.shape), where).invert()
    assert residual < 1e-6
    torch.testing.assert_close(inverse.ddf, -shift.reshape(3, 1, 1, 1).expand(3, *where.shape))


def test_residual_is_what_is_left_of_there_and_back() -> None:
    field = random_field(grid(2, "oblique"), size=3.0)
    inverse, residual = field.invert(iterations=0, tolerance=0)
    back = inverse.ddf.numpy().astype(float)
    sites = np.indices(field.grid.shape) + back
    there = np.stack([map_coordinates(c, sites, order=1, mode="nearest") for c in field.ddf.numpy().astype(float)])
    inside = np.all([(s >= 0) & (s <= n - 1) for s, n in zip(sites, field.grid.shape, strict=True)], axis=0)
    assert residual > 0.01
    assert residual == pytest.approx(np.linalg.norm(back + there, axis=0)[inside].max(), abs=1e-5)
    assert field.invert()[1] <= 0.01


def test_label_stays_whole_numbers() -> None:
    field = random_field(grid(2, "oblique"))
    label = torch.randint(0, 4, (1, *field.grid.shape), dtype=torch.uint8)
    warped = field.warp(label, field.grid, mode="nearest")
    assert warped.dtype == torch.uint8 and set(warped.unique().tolist()) <= {0, 1, 2, 3}


def test_wrong_input_is_named(tmp_path: Path) -> None:
    where = grid(2, "plain")
    with pytest.raises(ValueError, match=r"ddf must have shape \(2, 23, 17\).*got \(3, 23, 17\)"):
        DisplacementField(torch.zeros(3, 23, 17), where)
    with pytest.raises(ValueError, match="affine must be a 3 x 3"):
        Grid((4, 5), np.eye(4))
    with pytest.raises(ValueError, match="invertible"):
        Grid((4, 5), np.zeros((3, 3)))
    with pytest.raises(FileNotFoundError, match=r"nothing\.mha"):
        read_displacement(tmp_path / "nothing.mha")
    scalar = tmp_path / "scalar.mha"
    sitk.WriteImage(to_sitk(np.zeros(where.shape), where), str(scalar))
    with pytest.raises(ValueError, match=r"scalar\.mha: not a displacement field"):
        read_displacement(scalar)
    sheared = Grid((4, 5), np.array([[1.0, 0.5, 0], [0, 1.0, 0], [0, 0, 1.0]]))
    with pytest.raises(ValueError, match="right angles"):
        write_displacement(DisplacementField(torch.zeros(2, 4, 5), sheared), tmp_path / "field.mha")
    assert not (tmp_path / "field.mha").exists()
