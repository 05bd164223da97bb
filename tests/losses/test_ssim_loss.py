"""SSIM with separable windows, against MONAI's dense one."""

from __future__ import annotations

from functools import reduce

import monai.losses
import numpy as np
import pytest
import torch
from monai.metrics.regression import compute_ssim_and_cs
from numpy.typing import NDArray
from torch import Tensor, nn

from fmirnet_monai.losses import SSIMLoss, ssim_map, window_centres

SHAPES = [(2, 1, 16, 21), (3, 2, 11, 30), (1, 1, 14, 12, 17), (2, 3, 11, 13, 11)]


def image_pair(shape: tuple[int, ...], data_range: float = 1.0) -> tuple[Tensor, Tensor]:
    """A random image and a noisy copy of it, within ``[0, data_range]``."""
    image = torch.rand(shape)
    return image * data_range, (0.7 * image + 0.3 * torch.rand(shape)) * data_range


@pytest.mark.parametrize("data_range", [1.0, 255.0])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_equals_monai(shape: tuple[int, ...], reduction: str, data_range: float) -> None:
    x, y = image_pair(shape, data_range)
    expected = monai.losses.SSIMLoss(len(shape) - 2, data_range, reduction=reduction)(x, y)
    result = SSIMLoss(data_range, reduction=reduction)(x, y)
    assert result.shape == expected.shape
    # MONAI's dense window errs by up to 3e-6 in 3-D, ten times as much as the separable one
    torch.testing.assert_close(result, expected, atol=1e-6 if len(shape) == 4 else 1e-5, rtol=1e-6)


@pytest.mark.parametrize("data_range", [1.0, 255.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_equals_a_dense_window_in_double_precision(shape: tuple[int, ...], data_range: float) -> None:
    x, y = image_pair(shape, data_range)
    dims = len(shape) - 2
    profile = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = reduce(np.multiply.outer, [profile / profile.sum()] * dims)

    def mean(a: NDArray) -> NDArray:
        views = np.lib.stride_tricks.sliding_window_view(a, window.shape, tuple(range(-dims, 0)))
        return np.tensordot(views, window, dims)

    a, b = x.double().numpy(), y.double().numpy()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b, cov = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2, mean(a * b) - mean_a * mean_b
    ssim = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    assert SSIMLoss(data_range)(x, y).item() == pytest.approx(1 - ssim.mean(), abs=1e-6)


@pytest.mark.parametrize(("win_size", "sigma"), [(7, 1.5), (5, 0.8)])
@pytest.mark.parametrize("shape", SHAPES)
def test_other_windows_equal_monai(shape: tuple[int, ...], win_size: int, sigma: float) -> None:
    x, y = image_pair(shape)
    expected = monai.losses.SSIMLoss(len(shape) - 2, win_size=win_size, kernel_sigma=sigma)(x, y)
    torch.testing.assert_close(SSIMLoss(win_size=win_size, kernel_sigma=sigma)(x, y), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_map_equals_monai_voxel_by_voxel(shape: tuple[int, ...]) -> None:
    dims = len(shape) - 2
    x, y = image_pair(shape)
    expected, _ = compute_ssim_and_cs(x, y, dims, [11] * dims, [1.5] * dims)
    torch.testing.assert_close(ssim_map(x, y), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_equals_monai(shape: tuple[int, ...]) -> None:
    x, y = image_pair(shape)

    def gradient(loss: nn.Module) -> Tensor:
        leaf = x.clone().requires_grad_()
        loss(leaf, y).backward()
        return leaf.grad

    expected = gradient(monai.losses.SSIMLoss(len(shape) - 2))
    torch.testing.assert_close(gradient(SSIMLoss()), expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_masked_loss_equals_dense_windows_of_valid_voxels_in_double_precision(shape: tuple[int, ...]) -> None:
    x, y = image_pair(shape)
    dims = len(shape) - 2
    weights = torch.rand(shape[0], 1, *shape[2:]) * (torch.rand(shape[0], 1, *shape[2:]) > 0.5)
    profile = np.exp(-0.5 * (np.arange(-3, 4) / 1.5) ** 2)
    a, b, w = (
        np.lib.stride_tricks.sliding_window_view(
            t.expand(shape).double().numpy(), [7] * dims, tuple(range(2, 2 + dims))
        )
        for t in (x, y, weights)
    )
    local = w * reduce(np.multiply.outer, [profile] * dims)
    local = local / local.sum(tuple(range(-dims, 0)), keepdims=True)
    mean_a, mean_b, aa, bb, ab = (
        (local * moment).sum(tuple(range(-dims, 0))) for moment in (a, b, a * a, b * b, a * b)
    )
    luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
    ssim = luminance * (2 * (ab - mean_a * mean_b) + 9e-4) / (aa - mean_a**2 + bb - mean_b**2 + 9e-4)
    centres = w[(..., *[3] * dims)]
    np.testing.assert_allclose(ssim_map(x, y, win_size=7, mask=weights), ssim, atol=1e-4)
    loss = SSIMLoss(win_size=7)(x, y, weights)
    assert float(loss) == pytest.approx(1 - np.average(ssim, weights=centres), abs=1e-6)
    each = [1 - np.average(s, weights=c) for s, c in zip(ssim, centres, strict=True)]
    np.testing.assert_allclose(SSIMLoss(win_size=7, reduction="none")(x, y, weights)[:, 0], each, atol=1e-6)
    assert float(SSIMLoss(win_size=7, reduction="sum")(x, y, weights)) == pytest.approx(sum(each), abs=1e-5)


@pytest.mark.parametrize("shape", [(2, 1, 30, 33), (1, 2, 19, 20, 18)])
def test_masking_a_box_equals_cropping_it_where_the_window_fits(shape: tuple[int, ...]) -> None:
    x, y = image_pair(shape)
    dims = len(shape) - 2
    box, centres = (..., *[slice(2, 14)] * dims), (..., *[slice(5, 11)] * dims)
    mask = torch.zeros(shape[0], 1, *shape[2:])
    mask[box] = 1
    of_voxels = torch.full(shape, torch.nan)
    window_centres(of_voxels, 7).copy_(ssim_map(x, y, win_size=7, mask=mask))
    torch.testing.assert_close(of_voxels[centres], ssim_map(x[box], y[box], win_size=7), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_images_have_no_loss(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    assert SSIMLoss()(x, x).abs() < 1e-5


@pytest.mark.parametrize("shape", [(1, 1, 10, 20), (1, 1, 20, 10), (1, 1, 16, 16, 10)])
def test_image_smaller_than_the_window_is_refused_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="win_size=11") as error:
        ssim_map(torch.rand(shape), torch.rand(shape))
    assert str(list(shape)) in str(error.value)


@pytest.mark.parametrize("shape", [(1, 1, 10, 20), (1, 1, 9, 20), (1, 1, 16, 16, 1)])
def test_loss_of_a_narrow_image_has_the_widest_window_that_fits(shape: tuple[int, ...]) -> None:
    x, y = torch.rand(shape), torch.rand(shape)
    width = 9 if min(shape[2:]) > 1 else 1
    torch.testing.assert_close(SSIMLoss()(x, y), 1 - ssim_map(x, y, win_size=width).mean())


def test_images_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[1, 1, 16, 16\] and \[1, 1, 16, 17\]"):
        SSIMLoss()(torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 17))


def test_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="median"):
        SSIMLoss(reduction="median")
