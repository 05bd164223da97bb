"""Warping, composing and integrating displacement fields, against MONAI, SciPy and answers known by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.networks.blocks import Warp
from scipy.linalg import expm
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import Tensor

from fmirnet_monai.spatial import compose, downsample, identity_grid, integrate, upsample_field, warp

SIZES = [(8, 12), (7, 13), (6, 9, 11), (5, 8, 7)]


def smooth(channels: int, size: tuple[int, ...], sigma: float, seed: int) -> Tensor:
    """Smooth noise ``(1, channels, *size)`` in double precision with values up to 1 in magnitude."""
    noise = np.random.default_rng(seed).standard_normal((channels, *size))
    noise = gaussian_filter(noise, (0, *[sigma] * len(size)), mode="nearest")
    return torch.from_numpy(noise / np.abs(noise).max()).unsqueeze(0)


def taper(size: tuple[int, ...]) -> Tensor:
    """Window that falls to 0 at the border of the grid."""
    window = torch.ones(size, dtype=torch.float64)
    for axis, n in enumerate(size):
        profile = torch.linspace(0, torch.pi, n, dtype=torch.float64).sin()
        window = window * profile.reshape([-1 if a == axis else 1 for a in range(len(size))])
    return window


def interior(tensor: Tensor, margin: int) -> Tensor:
    """``tensor`` without ``margin`` voxels at each border."""
    return tensor[(..., *[slice(margin, -margin)] * (tensor.dim() - 2))]


@pytest.mark.parametrize("size", SIZES)
def test_identity_grid_equals_numpy_indices(size: tuple[int, ...]) -> None:
    grid = identity_grid(torch.zeros(2, len(size), *size))
    np.testing.assert_array_equal(grid.numpy(), np.indices(size)[None])


@pytest.mark.parametrize("padding_mode", ["border", "zeros", "reflection"])
@pytest.mark.parametrize("size", SIZES)
def test_warp_equals_monai(size: tuple[int, ...], padding_mode: str) -> None:
    image, ddf = torch.rand(2, 3, *size), 3 * torch.randn(2, len(size), *size)
    expected = Warp("bilinear", padding_mode)(image, ddf)
    torch.testing.assert_close(warp(image, ddf, padding_mode=padding_mode), expected, atol=1e-5, rtol=0)


def test_bicubic_warp_equals_monai() -> None:
    image, ddf = torch.rand(2, 1, 9, 14), torch.randn(2, 2, 9, 14)
    torch.testing.assert_close(warp(image, ddf, mode="bicubic"), Warp("bicubic")(image, ddf), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("mode", "order"), [("bilinear", 1), ("nearest", 0)])
@pytest.mark.parametrize("size", SIZES)
def test_warp_equals_scipy(size: tuple[int, ...], mode: str, order: int) -> None:
    image = torch.rand(1, 1, *size, dtype=torch.float64)
    ddf = 3 * torch.randn(1, len(size), *size, dtype=torch.float64)
    expected = map_coordinates(image[0, 0].numpy(), np.indices(size) + ddf[0].numpy(), order=order, mode="nearest")
    np.testing.assert_allclose(warp(image, ddf, mode=mode)[0, 0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("size", "axis"), [((6, 9), 0), ((6, 9), 1), ((5, 8, 7), 0), ((5, 8, 7), 1), ((5, 8, 7), 2)])
def test_shift_pulls_the_image_from_the_right_side(size: tuple[int, ...], axis: int) -> None:
    """A displacement of +2 along an axis shows at x what was at x + 2, and repeats the last voxel at the border."""
    image = torch.rand(1, 1, *size)
    ddf = torch.zeros(1, len(size), *size)
    ddf[:, axis] = 2
    warped = warp(image, ddf)
    n = size[axis]
    expected = image.index_select(2 + axis, (torch.arange(n) + 2).clamp(max=n - 1))
    torch.testing.assert_close(warped, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(1, 9), (9, 1), (4, 1, 5)])
def test_identity_on_a_grid_with_one_single_slice(size: tuple[int, ...]) -> None:
    image = torch.rand(1, 2, *size)
    torch.testing.assert_close(warp(image, torch.zeros(1, len(size), *size)), image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(2, 2, 9, 8), (2, 3, 8, 9), (1, 2, 8, 9), (2, 2, 8, 9, 4), (2, 1, 8, 9)])
def test_mismatch_of_image_and_field_names_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image \[2, 1, 8, 9\] and ddf") as error:
        warp(torch.zeros(2, 1, 8, 9), torch.zeros(shape))
    assert str(list(shape)) in str(error.value)


def test_field_of_double_precision_warps_an_image_of_single_precision() -> None:
    image, ddf = torch.rand(1, 1, 7, 9), torch.randn(1, 2, 7, 9)
    torch.testing.assert_close(warp(image, ddf.double()), warp(image, ddf), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_half_precision_field_keeps_its_precision_far_from_the_origin(dtype: torch.dtype) -> None:
    """As under autocast: displacement and image may be rounded to half precision, the sample position may not."""
    column = torch.arange(600.0)
    image = (column / 10).sin().expand(1, 1, 4, 600).to(dtype)
    ddf = torch.zeros(1, 2, 4, 600, dtype=torch.float16)
    ddf[:, 1] = 0.3
    expected = ((column + 0.3) / 10).sin().expand(1, 1, 4, 600)
    warped = warp(image, ddf)
    assert warped.dtype == dtype
    # linear interpolation errs by up to 0.01 / 8, half precision by 0.0005
    torch.testing.assert_close(warped[..., :-1].float(), expected[..., :-1], atol=3e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_velocity_is_integrated_as_exactly_far_from_the_origin(dtype: torch.dtype) -> None:
    velocity = 4 * smooth(2, (16, 400), 5.0, seed=0).float()
    found = integrate(velocity.to(dtype), 4)
    error = (found.float() - integrate(velocity, 4)).abs().max()
    assert found.dtype == dtype and error < 0.1  # positions rounded to bfloat16 would be wrong by up to a voxel


@pytest.mark.parametrize("size", [(4, 5), (3, 4, 3)])
def test_warp_gradient_is_right(size: tuple[int, ...]) -> None:
    image = torch.rand(1, 1, *size, dtype=torch.float64, requires_grad=True)
    # positions between the voxels, where linear interpolation has a derivative
    ddf = (0.2 + 0.6 * torch.rand(1, len(size), *size, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(warp, (image, ddf))


@pytest.mark.parametrize("size", SIZES)
def test_composition_of_constant_shifts_is_their_sum(size: tuple[int, ...]) -> None:
    first = torch.randn(2, len(size), *[1] * len(size), dtype=torch.float64).expand(2, -1, *size)
    second = torch.randn(2, len(size), *[1] * len(size), dtype=torch.float64).expand(2, -1, *size)
    torch.testing.assert_close(compose(first, second), first + second, atol=1e-12, rtol=0)


def test_composition_with_the_identity_changes_nothing() -> None:
    ddf = torch.randn(1, 2, 7, 9, dtype=torch.float64)
    zero = torch.zeros_like(ddf)
    torch.testing.assert_close(compose(ddf, zero), ddf, atol=1e-12, rtol=0)
    torch.testing.assert_close(compose(zero, ddf), ddf, atol=1e-12, rtol=0)


@pytest.mark.parametrize("axis", [0, 1])
def test_order_of_composition(axis: int) -> None:
    """Doubling (x -> 2 x) after a shift by 3 is 2 (x + 3), the shift after doubling is 2 x + 3."""
    size = (14, 18)
    position = identity_grid(torch.zeros(1, 2, *size, dtype=torch.float64))[:, axis]
    doubling, shift = torch.zeros(2, 1, 2, *size, dtype=torch.float64)
    doubling[:, axis], shift[:, axis] = position, 3.0
    inside = slice(0, size[axis] - 3)

    def along(ddf: Tensor) -> Tensor:
        assert not ddf[:, 1 - axis].any()
        return ddf[:, axis].transpose(1, 1 + axis)[:, inside]

    expected = position.transpose(1, 1 + axis)[:, inside]
    torch.testing.assert_close(along(compose(doubling, shift)), expected + 6.0, atol=1e-10, rtol=0)
    torch.testing.assert_close(along(compose(shift, doubling)), expected + 3.0, atol=1e-10, rtol=0)


@pytest.mark.parametrize("size", [(40, 48), (24, 28, 20)])
def test_warp_with_a_composition_is_two_warps(size: tuple[int, ...]) -> None:
    dims = len(size)
    image = smooth(1, size, 5.0, seed=0)
    outer, inner = (2 * smooth(dims, size, 5.0, seed=s) for s in (1, 2))
    once, twice = warp(image, compose(outer, inner)), warp(warp(image, outer), inner)
    error = interior(once - twice, 3).abs().max()
    wrong_order = interior(warp(image, compose(inner, outer)) - twice, 3).abs().max()
    assert error < 0.004
    assert wrong_order > 3 * error


def test_zero_steps_give_the_velocity() -> None:
    velocity = torch.randn(1, 3, 4, 5, 6)
    assert torch.equal(integrate(velocity, 0), velocity)


def test_integral_of_a_constant_velocity_is_itself() -> None:
    velocity = torch.tensor([1.5, -2.25], dtype=torch.float64).reshape(1, 2, 1, 1).expand(1, 2, 8, 9)
    torch.testing.assert_close(integrate(velocity, 6), velocity, atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [(40, 48), (28, 32, 30)])
def test_integral_of_the_negative_velocity_is_the_inverse(size: tuple[int, ...]) -> None:
    velocity = smooth(len(size), size, 6.0, seed=3) * taper(size)
    velocity = velocity * (2.0 / velocity.abs().max())
    there, back = integrate(velocity, 7), integrate(-velocity, 7)
    assert there.abs().max() > 1.5
    assert compose(there, back).abs().max() < 0.05
    assert compose(back, there).abs().max() < 0.05
    assert compose(there, -there).abs().max() > 0.25  # the change of sign alone is no inverse


@pytest.mark.parametrize("dims", [2, 3])
def test_integral_of_a_linear_velocity_is_the_matrix_exponential(dims: int) -> None:
    steps, size = 8, (31, 35, 33)[:dims]
    matrix = np.array([[0.1, -0.3, 0.05], [0.25, -0.15, 0.1], [-0.1, 0.05, 0.2]])[:dims, :dims]
    centre = (np.array(size) - 1) / 2
    position = np.indices(size) - centre.reshape(-1, *[1] * dims)
    velocity = torch.from_numpy(np.tensordot(matrix, position, 1)).unsqueeze(0)
    ddf = integrate(velocity, steps)
    for exponential, tolerance in (
        (np.linalg.matrix_power(np.eye(dims) + matrix / 2**steps, 2**steps), 1e-9),  # what the squaring amounts to
        (expm(matrix), 0.01),
    ):
        expected = torch.from_numpy(np.tensordot(exponential, position, 1) - position).unsqueeze(0)
        torch.testing.assert_close(interior(ddf, 9), interior(expected, 9), atol=tolerance, rtol=0)


@pytest.mark.parametrize("size", [(5, 7), (4, 6, 5)])
def test_upsampled_linear_field_has_right_values_and_units(size: tuple[int, ...]) -> None:
    """Coarse voxel i has its centre at fine 2 i + 0.5; a displacement of one coarse voxel is one of two fine voxels."""
    dims = len(size)
    matrix, offset = torch.randn(dims, dims), torch.randn(dims)

    def field(position: Tensor) -> Tensor:
        return torch.einsum("ij,bj...->bi...", matrix, position) + offset.reshape(1, -1, *[1] * dims)

    fine = upsample_field(field(identity_grid(torch.zeros(1, dims, *size))))
    expected = 2 * field((identity_grid(fine) - 0.5) / 2)
    torch.testing.assert_close(interior(fine, 1), interior(expected, 1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(6, 10), (4, 6, 8)])
def test_downsample_averages_blocks(size: tuple[int, ...]) -> None:
    """The coarse grid lies at the fine positions 2 i + 0.5, as :py:func:`upsample_field` takes it."""
    coarse = downsample(identity_grid(torch.zeros(1, len(size), *size)))
    torch.testing.assert_close(coarse, 2 * identity_grid(coarse) + 0.5)


@pytest.mark.parametrize("size", [(8, 10), (6, 4, 8)])
def test_scripted_functions_give_equal_results(size: tuple[int, ...]) -> None:
    image, ddf, other = torch.rand(1, 2, *size), torch.randn(1, len(size), *size), torch.randn(1, len(size), *size)
    script = torch.jit.script
    assert torch.equal(script(warp)(image, ddf), warp(image, ddf))
    assert torch.equal(script(warp)(image, ddf, "nearest", "zeros"), warp(image, ddf, "nearest", "zeros"))
    assert torch.equal(script(compose)(ddf, other), compose(ddf, other))
    assert torch.equal(script(integrate)(ddf, 4), integrate(ddf, 4))
    assert torch.equal(script(upsample_field)(ddf), upsample_field(ddf))
    assert torch.equal(script(downsample)(ddf), downsample(ddf))
    assert torch.equal(script(identity_grid)(ddf), identity_grid(ddf))
