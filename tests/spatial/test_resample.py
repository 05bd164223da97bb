"""Images resampled through maps, against SimpleITK, MONAI and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.networks.layers import GaussianFilter
from scipy.ndimage import gaussian_filter

from fmirnet_monai.spatial import (
    Affine,
    DisplacementField,
    Grid,
    chain,
    extend,
    resample,
    resize,
    resize_field,
    smooth,
)
from fmirnet_monai.spatial import grid as grid_module
from fmirnet_monai.spatial.resample import coarsening

from .conftest import random_affine, random_field, random_grid, smooth_image, to_sitk, transform_of


def near(rng: np.random.Generator, grid: Grid, shape: tuple[int, ...] | None = None) -> Grid:
    """A grid of other axes whose middle lies where that of another does, nearly."""
    other = random_grid(rng, grid.dims, shape)
    affine = other.affine.copy()
    affine[:-1, -1] += grid.to_world((np.array(grid.shape) - 1) / 2) - other.to_world((np.array(other.shape) - 1) / 2)
    affine[:-1, -1] += 0.3
    return Grid(other.shape, affine)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("shape", [(19, 16), (14, 16, 13), (15, 18, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_the_same_image_as_simpleitk_from_the_same_map(shape: tuple[int, ...], mode: str, seed: int) -> None:
    """Fill value included, and beyond the field's own grid."""
    rng = np.random.default_rng(seed)
    fixed = random_grid(rng, len(shape), shape)
    moving = near(rng, fixed)
    image = smooth_image(rng, moving)
    if mode == "nearest":
        image = image.round().int()
    whole = chain([random_field(rng, near(rng, fixed)), random_affine(rng, fixed.dims, fixed)])
    ours, inside = resample(image, fixed, whole, grid=moving, mode=mode, fill=-7)
    options = sitk.sitkLinear if mode == "bilinear" else sitk.sitkNearestNeighbor
    stored, reference = to_sitk(image[0].double().numpy(), moving), to_sitk(np.zeros(fixed.shape), fixed)
    expected = sitk.GetArrayFromImage(sitk.Resample(stored, reference, transform_of(whole), options, -7.0)).T
    differs = np.abs(ours[0].double().numpy() - expected) > 2e-4 * np.abs(image.numpy()).max()
    assert 0.1 < inside.float().mean() <= 1
    assert differs.mean() < 0.002  # where rounding decides on which side of a voxel's edge a point lies
    assert ours.dtype == image.dtype
    assert (ours[:, ~inside][expected[None, ~inside.numpy()] == -7] == -7).all()


def test_what_is_not_seen_is_filled_and_said() -> None:
    fixed = Grid((10, 4), np.eye(3))
    image = torch.arange(1.0, 25).reshape(1, 6, 4)
    values, inside = resample(image, fixed)
    torch.testing.assert_close(values[:, :6], image)
    assert (values[:, 6:] == 1).all()
    assert inside[:6].all() and not inside[6:].any()
    assert (resample(image, fixed, fill=-3)[0][:, 6:] == -3).all()
    assert (resample(image.int(), fixed, mode="nearest")[0][:, 6:] == 0).all()


@pytest.mark.parametrize("thickness", [1.0, 3.0, 7.0])
def test_a_slice_is_as_thick_as_its_spacing(thickness: float) -> None:
    volume = Grid((8, 8, 20), np.eye(4))
    affine = np.diag([1.0, 1, thickness, 1])
    affine[2, 3] = 9.0
    label = torch.ones(1, 8, 8, 1, dtype=torch.int32)
    values, inside = resample(label, volume, grid=Grid((8, 8, 1), affine), mode="nearest")
    covered = np.abs(np.arange(20) - 9.0) <= thickness / 2
    assert np.array_equal(values[0].amax((0, 1)).numpy() > 0, covered)
    assert np.array_equal(inside.any(0).any(0).numpy(), covered)


def test_a_map_on_another_grid_is_not_known_beyond_it() -> None:
    image = torch.rand(1, 12, 12)
    field = DisplacementField(torch.ones(2, 4, 12), Grid((4, 12), np.eye(3)))
    values, inside = resample(image, Grid((12, 12), np.eye(3)), field)
    assert not inside[4:].any()
    assert inside[:4, :11].all()
    torch.testing.assert_close(values[:, 4:], image[:, 4:])  # as in ITK, there it moves nothing


def test_slabs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    fixed = random_grid(rng, 3, (13, 11, 9))
    moving = near(rng, fixed)
    whole = chain([random_field(rng, fixed), random_affine(rng, 3, fixed)])
    image = smooth_image(rng, moving)
    once = resample(image, fixed, whole, grid=moving)
    field = DisplacementField.of(whole, fixed)[0]
    figures = field.jacobian_determinant(), field.digital_folding(), field.length()
    monkeypatch.setattr(grid_module, "SLAB", 200)
    again = resample(image, fixed, whole, grid=moving)
    assert torch.equal(once[0], again[0]) and torch.equal(once[1], again[1])
    field = DisplacementField.of(whole, fixed)[0]
    torch.testing.assert_close((field.jacobian_determinant(), field.digital_folding(), field.length()), figures)


@pytest.mark.parametrize("angle", [0.0, np.pi / 4, np.pi / 2])
def test_an_image_that_is_worked_on_is_smoothed_as_far_as_it_gets_coarser(angle: float) -> None:
    """Noise of four by four voxels, seen by one: its deviation falls as that of a Gaussian of 1.5 voxels does."""
    turn = np.eye(3)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    fine = Grid((240, 240), np.diag([0.5, 0.5, 1.0]))
    coarse = turn @ np.diag([2.0, 2.0, 1.0])
    coarse[:2, 2] = [60 * (1 - np.cos(angle) + np.sin(angle)), 60 * (1 - np.cos(angle) - np.sin(angle))]
    onto = Grid((40, 40), coarse)
    noise = torch.randn(1, 240, 240, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(coarsening(fine, onto), 4.0)
    expected = gaussian_filter(noise[0].numpy(), 1.5).std()
    seen, inside = resample(noise, onto, grid=fine, antialias=True)
    assert inside.float().mean() > 0.3
    assert float(seen[0][inside].std()) < 1.1 * expected
    assert float(resample(noise, onto, grid=fine)[0][0][inside].std()) > 2.5 * expected


def test_what_gets_finer_is_not_smoothed_and_labels_never_are() -> None:
    image = torch.rand(1, 20, 20)
    coarse, fine = Grid((20, 20), np.eye(3)), Grid((20, 20), np.eye(3)).resized((60, 50))
    assert torch.equal(resample(image, fine, grid=coarse, antialias=True)[0], resample(image, fine, grid=coarse)[0])
    label = (image > 0.5).int()
    onto = coarse.resized((7, 7))
    assert torch.equal(
        resample(label, onto, grid=coarse, mode="nearest", antialias=True)[0],
        resample(label, onto, grid=coarse, mode="nearest")[0],
    )


def test_the_scale_of_an_affine_map_counts() -> None:
    grid = Grid((20, 20), np.eye(3))
    np.testing.assert_allclose(coarsening(grid, grid, Affine(np.diag([3.0, 1.0, 1.0]))), [3.0, 1.0])


@pytest.mark.parametrize("shape", [(17, 23), (9, 12, 7)])
@pytest.mark.parametrize("sigma", [0.35, 1.0, 3.0])
def test_smooth_is_a_gaussian_filter_that_repeats_the_border(shape: tuple[int, ...], sigma: float) -> None:
    values = torch.rand(2, 3, *shape)
    padded = np.pad(values.numpy(), [(0, 0), (0, 0), *[(20, 20)] * len(shape)], mode="edge")
    expected = GaussianFilter(len(shape), sigma)(torch.from_numpy(padded))[(..., *[slice(20, -20)] * len(shape))]
    torch.testing.assert_close(smooth(values, sigma), expected, rtol=0, atol=2e-4)
    axes = [sigma, *[0.0] * (len(shape) - 1)]
    one = np.moveaxis(values.numpy(), 2, -1)
    along = smooth(torch.from_numpy(one.reshape(-1, 1, shape[0], 1).copy()), [sigma, 0.0]).numpy().reshape(one.shape)
    np.testing.assert_allclose(smooth(values, axes).numpy(), np.moveaxis(along, -1, 2), atol=1e-5)


@pytest.mark.parametrize("size", [(9, 31), (40, 12)])
def test_resize_is_resampling_over_the_same_extent(size: tuple[int, int]) -> None:
    image = torch.rand(1, 23, 18)
    grid = Grid((23, 18), np.diag([2.0, 1.0, 1.0]))
    expected, inside = resample(image, grid.resized(size), grid=grid, antialias=True)
    assert inside.all()
    torch.testing.assert_close(resize(image[None], size)[0], expected, rtol=0, atol=1e-5)


def test_a_resized_field_is_the_same_map() -> None:
    rng = np.random.default_rng(0)
    grid = random_grid(rng, 2, (20, 16))
    field = random_field(rng, grid)
    finer = grid.resized((40, 48))
    again = DisplacementField(resize_field(field.ddf[None], finer.shape)[0], finer)
    points = torch.from_numpy(grid.points())
    torch.testing.assert_close(again(points)[0], field(points)[0], rtol=0, atol=0.05)


def test_wrong_input_is_named() -> None:
    grid = Grid((4, 4), np.eye(3))
    with pytest.raises(ValueError, match="mode must be one of bilinear, nearest, got 'cubic'"):
        resample(torch.rand(1, 4, 4), grid, mode="cubic")
    with pytest.raises(ValueError, match="image, map and grid have 3, 2 and 2 axes"):
        resample(torch.rand(1, 4, 4, 4), grid)


@pytest.mark.parametrize("size", [(12, 9), (7, 8, 6)])
def test_what_is_unknown_goes_on_as_the_nearest_known_voxel(size: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    image, known = torch.rand(2, *size), torch.from_numpy(rng.random(size) < 0.3)
    extended = extend(image, known)
    assert torch.equal(extended[:, known], image[:, known])
    places = known.nonzero()
    for index in (~known).nonzero():
        distances = (places - index).double().norm(dim=1)
        nearest = places[distances <= distances.min() + 1e-9]
        candidates = image[(0, *nearest.T)]
        assert (candidates == extended[(0, *index)]).any()
    assert extend(image, torch.ones(size, dtype=torch.bool)) is image
    assert extend(image, torch.zeros(size, dtype=torch.bool)) is image


def test_half_precision_is_of_values_not_of_positions() -> None:
    image = torch.zeros(1, 600, 4, dtype=torch.float16)
    image[:, ::2] = 1
    onto = Grid((590, 4), np.array([[1.0, 0.0, 4.25], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    found, _ = resample(image, onto, grid=Grid((600, 4), np.eye(3)))
    expected, _ = resample(image.float(), onto, grid=Grid((600, 4), np.eye(3)))
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=1e-3)
