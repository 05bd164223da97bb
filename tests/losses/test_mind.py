"""MIND-SSC: what it does not see, what it does, and that it drives a registration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from fmirnet_monai.losses import MINDSSCLoss


def image(*shape: int, seed: int = 0) -> Tensor:
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = gaussian_filter(noise, 2.0)
    return torch.from_numpy((smooth - smooth.min()) / np.ptp(smooth)).float()[None, None]


@pytest.mark.parametrize("shape", [(30, 26), (18, 16, 14)])
def test_linear_maps_of_intensity_change_nothing(shape: tuple[int, ...]) -> None:
    loss, a = MINDSSCLoss(), image(*shape)
    for scale, offset in ((-1.0, 1.0), (0.3, 0.2), (500.0, -100.0)):
        assert float(loss(a * scale + offset, a)) < 1e-6


@pytest.mark.parametrize("shape", [(30, 26), (18, 16, 14)])
def test_it_grows_with_the_distance_of_the_images(shape: tuple[int, ...]) -> None:
    loss, a = MINDSSCLoss(), image(*shape)
    values = [float(loss(torch.roll(a, k, 2), 1 - a)) for k in range(4)]
    assert values == sorted(values) and values[0] < 0.1 * values[1]
    assert values[-1] < float(loss(image(*shape, seed=1), a)) * 1.5


@pytest.mark.parametrize(("shape", "comparisons"), [((9, 8), 4), ((7, 8, 9), 12)])
def test_descriptor_has_the_published_comparisons(shape: tuple[int, ...], comparisons: int) -> None:
    found = MINDSSCLoss().descriptor(torch.cat([image(*shape), image(*shape, seed=1)], 1))
    assert found.shape == (1, 2 * comparisons, *shape)
    assert found.min() > 0 and torch.allclose(found.unflatten(1, (2, comparisons)).amax(2), torch.ones(1))


def test_descriptor_of_one_voxel_by_hand() -> None:
    """Radius and dilation 1: mean squares of 3 x 3 patches around the four neighbours of the middle."""
    a = image(9, 9)[0, 0]

    def patch(i: int, j: int) -> Tensor:
        return a[i - 1 : i + 2, j - 1 : j + 2]

    up, down, left, right = patch(3, 4), patch(5, 4), patch(4, 3), patch(4, 5)
    expected = torch.stack([((p - q) ** 2).mean() for p, q in ((up, left), (up, right), (down, left), (down, right))])
    expected -= expected.min()
    found = MINDSSCLoss(radius=1, dilation=1).descriptor(a[None, None])[0, :, 4, 4]
    torch.testing.assert_close(found, torch.exp(-expected / expected.mean()), rtol=1e-4, atol=1e-5)


def numpys_contexts(a: NDArray, weights: NDArray) -> tuple[NDArray, NDArray]:
    """Masked descriptor of a 2-D image for radius and dilation 1, and the mean weight of each comparison's pairs."""

    def neighbours(values: NDArray) -> tuple[NDArray, ...]:
        padded = np.pad(values, 1, mode="edge")
        return padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]

    def patch_mean(values: NDArray) -> NDArray:
        return sliding_window_view(np.pad(values, 1, mode="edge"), (3, 3)).mean((2, 3))

    pairs = [(0, 2), (0, 3), (1, 2), (1, 3)]  # up and down with left and right
    at, weight = neighbours(np.where(weights > 0, a, 0)), neighbours(weights)
    patches = np.stack([patch_mean(weight[i] * weight[j]) for i, j in pairs])
    distances = np.stack([patch_mean(weight[i] * weight[j] * (at[i] - at[j]) ** 2) for i, j in pairs])
    with np.errstate(invalid="ignore"):
        distances = np.ma.masked_invalid(distances / patches)
    distances = distances - distances.min(0)
    variance = distances.mean(0)
    usual = np.ma.average(variance, weights=weights)
    return np.ma.exp(-distances / np.ma.clip(variance, 1e-3 * usual, 1e3 * usual)).filled(1.0), patches


def test_masked_loss_equals_numpy() -> None:
    """Half of each image is faint, so that the usual variance counts, and in holes some patches have no valid pair."""
    x, y = (image(22, 20, seed=seed)[0, 0].double() for seed in (0, 1))
    x[:, 10:], y[:, 10:] = 0.01 * x[:, 10:], 0.01 * y[:, 10:]
    weights = torch.rand(22, 20).double().clamp(min=0.1)
    weights[2:8, 3:9] = weights[12:18, 11:17] = 0
    weights[4, 5] = weights[14, 13] = 1
    (a, patches), (b, _) = (numpys_contexts(i.numpy(), weights.numpy()) for i in (x, y))
    there = patches > 0
    assert 0 < there[:, weights > 0].mean() < 1  # some comparisons of valid voxels are left out
    loss, mask = MINDSSCLoss(radius=1, dilation=1), weights[None, None]
    np.testing.assert_allclose(loss.descriptor(x[None, None], mask)[0], a, rtol=1e-6)
    expected = np.average((a - b) ** 2, weights=weights.numpy() * there)
    assert float(loss(x[None, None], y[None, None], mask)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(30, 26), (20, 19, 18)])
def test_masked_descriptor_is_that_of_the_crop_where_its_patches_lie_inside(shape: tuple[int, ...]) -> None:
    a = image(*shape)
    box = (..., *[slice(2, 16)] * len(shape))
    mask = torch.zeros_like(a)
    mask[box] = 1
    inside = (..., *[slice(4, -4)] * len(shape))  # radius and dilation are 2
    masked, cropped = MINDSSCLoss().descriptor(a, mask)[box], MINDSSCLoss().descriptor(a[box])
    torch.testing.assert_close(masked[inside], cropped[inside], rtol=1e-4, atol=1e-5)


def test_flat_images_have_a_finite_gradient() -> None:
    flat = torch.full((1, 1, 8, 8), 0.5, requires_grad=True)
    loss = MINDSSCLoss()(flat, image(8, 8))
    loss.backward()
    assert torch.isfinite(loss) and flat.grad is not None and flat.grad.isfinite().all()


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="radius and dilation must be at least 1"):
        MINDSSCLoss(radius=0)
