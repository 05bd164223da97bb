"""Local NCC, against MONAI, SciPy's box filter and crops."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from monai.losses import LocalNormalizedCrossCorrelationLoss
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from torch import Tensor, nn

from fmirnet_monai.losses import LocalNCCLoss, local_ncc_map

SHAPES = [(2, 1, 19, 23), (1, 2, 14, 12, 13)]


def image_pair(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A random image and a noisy copy of it."""
    image = torch.rand(shape)
    return image, 0.6 * image + 0.4 * torch.rand(shape)


def inside(tensor: Tensor, margin: int) -> Tensor:
    return tensor[(..., *[slice(margin, -margin)] * (tensor.dim() - 2))]


@pytest.mark.parametrize("kernel_size", [3, 5, 9])
@pytest.mark.parametrize("shape", SHAPES)
def test_map_equals_monai_where_the_window_lies_inside(shape: tuple[int, ...], kernel_size: int) -> None:
    x, y = image_pair(shape)
    monai = LocalNormalizedCrossCorrelationLoss(len(shape) - 2, kernel_size=kernel_size, reduction="none")
    expected = -monai(x.double(), y.double()).float()
    margin = kernel_size // 2
    result = local_ncc_map(x, y, kernel_size)
    assert result.shape == expected.shape
    torch.testing.assert_close(inside(result, margin), inside(expected, margin), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_equals_monai_where_all_windows_lie_inside(shape: tuple[int, ...]) -> None:
    x, y = image_pair(shape)

    def gradient(ncc: nn.Module) -> Tensor:
        leaf = x.double().requires_grad_()
        return torch.autograd.grad(inside(ncc(leaf, y.double()), 2).sum(), leaf)[0]

    monai = LocalNormalizedCrossCorrelationLoss(len(shape) - 2, kernel_size=5, reduction="none")
    torch.testing.assert_close(gradient(lambda a, b: local_ncc_map(a, b, 5)), -gradient(monai))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_map_equals_scipys_box_filter_over_valid_voxels(shape: tuple[int, ...], weighted: bool) -> None:
    """Windows at the border count what of them lies inside."""
    x, y = image_pair(shape)
    weights = torch.ones(shape[0], 1, *shape[2:])
    if weighted:
        weights = torch.rand(weights.shape) * (torch.rand(weights.shape) > 0.3)
    a, b, w = (t.expand(shape).double().numpy() for t in (x, y, weights))

    def total(values: NDArray) -> NDArray:
        size = (1, 1, *[5] * (len(shape) - 2))
        return uniform_filter(values, size, mode="constant") * 5 ** (len(shape) - 2)

    count = total(w)
    covariance = total(w * a * b) - total(w * a) * total(w * b) / count
    variances = [total(w * i * i) - total(w * i) ** 2 / count for i in (a, b)]
    expected = covariance**2 / np.maximum(variances, 1e-5).prod(0)
    result = local_ncc_map(x, y, 5, weights if weighted else None)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)
    loss = LocalNCCLoss(5)(x, y, weights if weighted else None)
    assert float(loss) == pytest.approx(-np.average(expected, weights=w), abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_masking_a_box_equals_cropping_it(shape: tuple[int, ...]) -> None:
    x, y = image_pair(shape)
    box = (..., *[slice(2, 11)] * (len(shape) - 2))
    mask = torch.zeros(shape[0], 1, *shape[2:])
    mask[box] = 1
    torch.testing.assert_close(local_ncc_map(x, y, 5, mask)[box], local_ncc_map(x[box], y[box], 5))
    torch.testing.assert_close(LocalNCCLoss(5)(x, y, mask), LocalNCCLoss(5)(x[box], y[box]))


@pytest.mark.parametrize("shape", [(1, 1, 7, 6), (1, 1, 5, 4, 4)])
def test_gradient_is_that_of_finite_differences(shape: tuple[int, ...]) -> None:
    x, y = (image.double() for image in image_pair(shape))
    mask = (torch.rand(shape) > 0.3).double()
    for weights in (None, mask):
        assert torch.autograd.gradcheck(
            lambda a, b, w=weights: local_ncc_map(a, b, 3, w).sum(), (x.requires_grad_(), y.requires_grad_())
        )


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_maps_of_intensity_change_nothing(shape: tuple[int, ...]) -> None:
    x, y = image_pair(shape)
    expected = LocalNCCLoss()(x, y)
    torch.testing.assert_close(LocalNCCLoss()(2 - 3 * x, y), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(LocalNCCLoss()(x + 100, y), expected, atol=1e-3, rtol=0)  # the sum's own rounding
    assert float(LocalNCCLoss()(x, 0.4 - 0.5 * x)) == pytest.approx(-1, abs=1e-5)


@pytest.mark.parametrize("noise", [0.0, 1e-5, 1e-4, 1e-3])
def test_correlation_is_at_most_one_in_flat_regions(noise: float) -> None:
    """Air and saturated bone: there rounding is all that the variance is, and MONAI's values are in the hundreds."""
    step = 0.9 * (torch.arange(24) > 11).float().expand(1, 1, 24, 24, 24)
    x, y = step + noise * torch.randn(step.shape), step + noise * torch.randn(step.shape)
    assert LocalNormalizedCrossCorrelationLoss(3, kernel_size=9, reduction="none")(step, step).min() < -10
    result = local_ncc_map(x.requires_grad_(), y)
    assert result.min() >= 0 and result.max() <= 1 + 1e-5
    result.sum().backward()
    assert x.grad.isfinite().all()


def test_images_narrower_than_the_window_are_taken() -> None:
    x, y = torch.rand(1, 1, 12, 13, 3), torch.rand(1, 1, 12, 13, 3)
    assert local_ncc_map(x, y, 9).shape == x.shape
    flat = local_ncc_map(x[..., :1], y[..., :1], 9)[..., 0]
    torch.testing.assert_close(flat, local_ncc_map(x[..., 0], y[..., 0], 9))


def test_unfit_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="kernel_size must be odd, got 4"):
        LocalNCCLoss(4)
    with pytest.raises(ValueError, match=r"\[1, 1, 16, 16\] and \[1, 1, 16, 17\]"):
        LocalNCCLoss()(torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 17))


def test_faster_than_monai_in_3d() -> None:
    """Forward and backward, the best of five in turns: processor time, too, grows beside other work on the machine."""
    x, y = image_pair((1, 1, 48, 48, 48))
    x.requires_grad_()

    def seconds(loss: nn.Module) -> float:
        start = time.process_time()
        loss(x, y).backward()
        return time.process_time() - start

    losses = LocalNCCLoss(9), LocalNormalizedCrossCorrelationLoss(3, kernel_size=9)
    ours, monais = (min(times) for times in zip(*[[seconds(loss) for loss in losses] for _ in range(5)], strict=True))
    assert ours < 0.8 * monais
