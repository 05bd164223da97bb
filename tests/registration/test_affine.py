"""The affine stage against maps applied by SimpleITK."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from numpy.typing import NDArray

from fmirnet_monai.registration.affine import register_affine
from fmirnet_monai.spatial import Grid, resample, smooth


def grid(dims: int, size: tuple[int, ...], shift: float = 0.0) -> Grid:
    """Oblique and flipped, with unequal spacing."""
    axes, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(dims, dims)))
    affine = np.eye(dims + 1)
    affine[:-1, :-1] = axes * np.array([1.2, -0.9, 2.0][:dims])
    affine[:-1, -1] = np.array([10.0, -20.0, 30.0][:dims]) + shift
    return Grid(size[:dims], affine)


def to_sitk(image: torch.Tensor, where: Grid) -> sitk.Image:
    flip = np.diag([-1.0, -1.0, 1.0][: where.dims])
    result = sitk.GetImageFromArray(image[0].numpy().T)
    result.SetSpacing(where.spacing.tolist())
    result.SetOrigin((flip @ where.affine[:-1, -1]).tolist())
    result.SetDirection((flip @ where.affine[:-1, :-1] / where.spacing).flatten().tolist())
    return result


def case(dims: int, kind: str) -> tuple[torch.Tensor, Grid, torch.Tensor, Grid, NDArray]:
    """A texture, and what SimpleITK makes of it on another grid through a known map (RAS+ mm, fixed to moving)."""
    generator = torch.Generator().manual_seed(0)
    moving_grid, fixed_grid = grid(dims, (64, 72, 40)), grid(dims, (60, 66, 36), shift=2.0)
    moving = smooth(torch.rand(1, 1, *moving_grid.shape, generator=generator), 3.0)[0]
    moving = (moving - moving.min()) / (moving.max() - moving.min())
    matrix = np.eye(dims + 1)
    if kind != "translation":
        cosine, sine = np.cos(0.06), np.sin(0.06)
        matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
    if kind == "affine":
        matrix[:-1, :-1] @= np.diag([1.04, 0.97, 1.02][:dims])
    centre = fixed_grid.to_world(np.array(fixed_grid.shape) / 2)
    matrix[:-1, -1] = centre - matrix[:-1, :-1] @ centre + np.array([2.0, -3.0, 1.5][:dims])
    flip = np.diag([-1.0, -1.0, 1.0][:dims])
    transform = sitk.AffineTransform(dims)
    transform.SetMatrix((flip @ matrix[:-1, :-1] @ flip).flatten().tolist())
    transform.SetTranslation((flip @ matrix[:-1, -1]).tolist())
    reference = to_sitk(torch.zeros(1, *fixed_grid.shape), fixed_grid)
    warped = sitk.GetArrayFromImage(sitk.Resample(to_sitk(moving, moving_grid), reference, transform, sitk.sitkLinear))
    return moving, moving_grid, torch.from_numpy(warped.T.copy())[None], fixed_grid, matrix


def error(found: NDArray, truth: NDArray, where: Grid) -> float:
    points = np.c_[where.points(), np.ones(len(where.points()))]
    return float(np.linalg.norm((points @ (found - truth).T)[:, :-1], axis=1).mean())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", ["translation", "rigid", "affine"])
@pytest.mark.parametrize("contrast", ["same", "inverted"])
def test_known_map_is_found(dims: int, kind: str, contrast: str) -> None:
    moving, moving_grid, fixed, fixed_grid, truth = case(dims, kind)
    moving = moving if contrast == "same" else 1 - moving
    found = register_affine(moving, fixed, kind, moving_grid, fixed_grid).matrix
    assert error(found, truth, fixed_grid) < 0.25 * error(np.eye(dims + 1), truth, fixed_grid)
    assert error(np.linalg.inv(found), truth, fixed_grid) > 0.5 * error(np.eye(dims + 1), truth, fixed_grid)


def test_same_input_same_numbers(capfd: pytest.CaptureFixture) -> None:
    moving, moving_grid, fixed, fixed_grid, _ = case(2, "affine")
    first, second = (register_affine(moving, fixed, "affine", moving_grid, fixed_grid).matrix for _ in range(2))
    assert np.array_equal(first, second)
    assert capfd.readouterr() == ("", "")


def test_single_slices_are_aligned_in_their_plane() -> None:
    moving, moving_grid, fixed, fixed_grid, truth = case(2, "affine")

    def thick(flat: Grid) -> Grid:
        affine = np.eye(4)
        affine[:2, :2], affine[:2, 3], affine[2, 3] = flat.affine[:2, :2], flat.affine[:2, 2], 7.0
        return Grid((*flat.shape, 1), affine)

    found = register_affine(moving[..., None], fixed[..., None], "affine", thick(moving_grid), thick(fixed_grid)).matrix
    assert error(found[np.ix_([0, 1, 3], [0, 1, 3])], truth, fixed_grid) < 1
    assert np.allclose(found[2], [0, 0, 1, 0]) and np.allclose(found[:2, 2], 0)


def test_a_single_slice_is_taken_to_the_other_s_plane() -> None:
    moving, moving_grid, fixed, fixed_grid, _ = case(2, "rigid")

    def at(flat: Grid, height: float) -> Grid:
        affine = np.eye(4)
        affine[:2, :2], affine[:2, 3], affine[2, 3] = flat.affine[:2, :2], flat.affine[:2, 2], height
        return Grid((*flat.shape, 1), affine)

    grids = at(moving_grid, -20.0), at(fixed_grid, 31.5)
    found = register_affine(moving[..., None], fixed[..., None], "rigid", *grids)
    _, inside = resample(moving[..., None], grids[1], found, grid=grids[0])
    assert inside.float().mean() > 0.5
    np.testing.assert_allclose(found.matrix[2], [0, 0, 1, -51.5], atol=1e-9)


def test_wrong_position_in_the_header_does_not_mislead() -> None:
    moving, moving_grid, fixed, fixed_grid, truth = case(3, "rigid")
    shift = np.eye(4)
    shift[:3, 3] = moving_grid.affine[:3, :3] @ np.array([40.0, 0.0, 0.0])  # overlap remains, of three eighths
    misplaced = Grid(moving_grid.shape, shift @ moving_grid.affine)
    assert fixed_grid.overlaps(misplaced)
    found = register_affine(moving, fixed, "rigid", misplaced, fixed_grid).matrix
    assert error(found, shift @ truth, fixed_grid) < 1


def test_wrong_input_is_named() -> None:
    image = torch.rand(1, 20, 20, 20)
    with pytest.raises(ValueError, match=r"affine must be one of .*got 'bspline'"):
        register_affine(image, image, "bspline")
    with pytest.raises(ValueError, match="single slice"):
        register_affine(image, torch.rand(1, 20, 20, 1))
