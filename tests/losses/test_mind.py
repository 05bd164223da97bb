"""MIND-SSC: what it does not see, what it does, and that it drives a registration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
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


def test_flat_images_have_a_finite_gradient() -> None:
    flat = torch.full((1, 1, 8, 8), 0.5, requires_grad=True)
    loss = MINDSSCLoss()(flat, image(8, 8))
    loss.backward()
    assert torch.isfinite(loss) and flat.grad is not None and flat.grad.isfinite().all()


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="radius and dilation must be at least 1"):
        MINDSSCLoss(radius=0)
