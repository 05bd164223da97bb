"""What every similarity does with a mask: only valid voxels count, by their weight."""

from __future__ import annotations

import monai.losses
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from fmirnet_monai.losses import (
    LocalNCCLoss,
    MINDSSCLoss,
    MSELoss,
    MutualInformationLoss,
    RegistrationLoss,
    SSIMLoss,
    compare,
    masked_mean,
)
from fmirnet_monai.losses.masked import Loss, takes

LOSSES: dict[str, Loss] = {
    "mse": MSELoss(),
    "ssim": SSIMLoss(win_size=7),
    "lncc": LocalNCCLoss(5),
    "mi": MutualInformationLoss(),
    "mind": MINDSSCLoss(radius=1, dilation=1),
    "dissimilarity": RegistrationLoss({"mse": nn.MSELoss(), "local": LocalNCCLoss(5)}).dissimilarity,
}
SHAPES = [(2, 1, 18, 21), (2, 2, 13, 12, 11)]


@pytest.fixture(params=LOSSES)
def loss(request: pytest.FixtureRequest) -> Loss:
    return LOSSES[request.param]


def image_pair(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Smooth images in [0, 1], the second related to the first."""
    noise = np.random.default_rng(3).normal(size=(2, *shape))
    first, second = gaussian_filter(noise, (0, 0, 0, *[1.2] * (len(shape) - 2)))
    images = [(i - i.min()) / np.ptp(i) for i in (first, np.sin(8 * first) + second)]
    return torch.from_numpy(images[0]).float(), torch.from_numpy(images[1]).float()


def blobs(shape: tuple[int, ...]) -> Tensor:
    """A mask of about half of the voxels ``(B, 1, *spatial)``, with holes, islands and voxels at the border."""
    noise = np.random.default_rng(4).normal(size=(shape[0], 1, *shape[2:]))
    return torch.from_numpy(gaussian_filter(noise, (0, 0, *[1.5] * (len(shape) - 2))) > 0)


def with_gradient(loss: Loss, x: Tensor, y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    value = compare(loss, leaf, y, mask)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_stands_at_invalid_voxels_has_no_influence(loss: Loss, shape: tuple[int, ...], soft: bool) -> None:
    (x, y), mask = image_pair(shape), blobs(shape)
    valid = mask.expand_as(x)
    weights = mask * torch.rand(mask.shape).clamp(min=0.1) if soft else mask
    value, gradient = with_gradient(loss, x, y, weights)
    other_x, other_y = (torch.where(valid, image, 1e15 * torch.randn(shape)) for image in (x, y))
    other_value, other_gradient = with_gradient(loss, other_x, other_y, weights)
    assert value != 0 and gradient.abs().max() > 0
    torch.testing.assert_close(other_value, value, rtol=0, atol=0)
    torch.testing.assert_close(other_gradient, gradient, rtol=0, atol=0)
    assert (gradient[~valid] == 0).all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_mask_of_ones_changes_nothing(loss: Loss, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, y = image_pair(shape)
    value, gradient = with_gradient(loss, x, y, torch.ones(shape[0], 1, *shape[2:], dtype=dtype))
    expected, expected_gradient = with_gradient(loss, x, y, None)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5 * float(expected_gradient.abs().max()))


@pytest.mark.parametrize("shape", SHAPES)
def test_an_empty_mask_gives_zero_and_no_gradient(loss: Loss, shape: tuple[int, ...]) -> None:
    value, gradient = with_gradient(loss, *image_pair(shape), torch.zeros(shape[0], 1, *shape[2:]))
    assert value == 0 and (gradient == 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_finite_in_flat_images_and_at_single_voxels(loss: Loss, shape: tuple[int, ...]) -> None:
    single = torch.zeros(shape[0], 1, *shape[2:])
    single[..., 5, 6] = 1
    ramp = torch.linspace(0, 1, shape[-1]).expand(shape)
    for x in (torch.zeros(shape), torch.full(shape, 0.7), ramp):
        for mask in (single, single * 1e-7, blobs(shape)):
            value, gradient = with_gradient(loss, x, ramp, mask)
            assert value.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
def test_nan_at_invalid_voxels_has_no_influence(loss: Loss, shape: tuple[int, ...]) -> None:
    """A warped image may be NaN where the moving one ends."""
    (x, y), mask = image_pair(shape), blobs(shape)
    value, gradient = with_gradient(loss, torch.where(mask, x, torch.nan), y, mask)
    expected, expected_gradient = with_gradient(loss, x, y, mask)
    torch.testing.assert_close(value, expected, rtol=0, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=0)


def test_a_mask_of_another_shape_is_refused(loss: Loss) -> None:
    x, y = image_pair((2, 2, 18, 21))
    with pytest.raises(ValueError, match=r"mask must have the shape \[2, 1, 18, 21\].*got \[2, 2, 18, 21\]"):
        compare(loss, x, y, torch.ones(2, 2, 18, 21))


@pytest.mark.parametrize("shape", SHAPES)
def test_mean_squares_are_numpys_weighted_average(shape: tuple[int, ...]) -> None:
    (x, y), weights = image_pair(shape), torch.rand(shape[0], 1, *shape[2:])
    squares = (x - y).square().double().numpy()
    expected = np.average(squares, weights=weights.expand(shape).numpy())
    assert float(MSELoss()(x, y, weights)) == pytest.approx(expected, rel=1e-5)
    each = [np.average(s, weights=w.expand(shape[1:])) for s, w in zip(squares, weights, strict=True)]
    np.testing.assert_allclose(masked_mean((x - y).square(), weights, each=True), each, rtol=1e-5)


VOXELWISE = [nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(beta=0.1), nn.HuberLoss(delta=0.1)]


@pytest.mark.parametrize("term", VOXELWISE, ids=lambda term: type(term).__name__)
@pytest.mark.parametrize("shape", SHAPES)
def test_compare_is_exact_for_means_over_voxels(term: nn.Module, shape: tuple[int, ...]) -> None:
    (x, y), mask = image_pair(shape), blobs(shape)
    valid = mask.expand_as(x)
    value, gradient = with_gradient(term, x, y, mask)
    leaf = x.clone().requires_grad_()
    expected = term(leaf[valid], y[valid])
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, leaf)[0])


def test_compare_of_a_windowed_loss_keeps_a_perfect_match_and_grows_with_the_distance() -> None:
    term = monai.losses.LocalNormalizedCrossCorrelationLoss(2, kernel_size=5)
    (x, _), mask = image_pair((1, 1, 30, 30)), blobs((1, 1, 30, 30))
    values = [float(compare(term, torch.where(mask, x.roll(k, 2), 7.0), x, mask)) for k in range(4)]
    assert values[0] == pytest.approx(float(term(x, x))) and values == sorted(values)
    assert with_gradient(term, x, x.roll(1, 2), torch.zeros_like(x))[0] == 0


def test_only_a_loss_that_takes_a_mask_is_given_one() -> None:
    assert all(takes(term, "mask") for term in LOSSES.values())
    others = [*VOXELWISE, monai.losses.SSIMLoss(2), lambda a, b: (a - b).mean()]
    assert not any(takes(other, "mask") for other in others)
    x, y = image_pair((1, 1, 18, 21))
    asked = []
    compare(lambda a, b, mask: asked.append(mask) or a.mean(), x, y, blobs(x.shape))
    assert len(asked) == 1


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_loss_of_each_item_is_that_of_the_item_alone(loss: Loss, shape: tuple[int, ...], masked: bool) -> None:
    x, y = (image.clone().requires_grad_() for image in image_pair(shape))
    mask = blobs(shape) if masked else None
    items = [compare(loss, x[i : i + 1], y[i : i + 1], None if mask is None else mask[i : i + 1]) for i in range(2)]
    found = compare(loss, x, y, mask, each=True)
    assert found.shape == (2,) and found[0] != found[1]
    torch.testing.assert_close(found, torch.stack(items))
    for one, other in zip(*(torch.autograd.grad(value, (x, y)) for value in (found.sum(), sum(items))), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
