"""The weighted sum of named terms."""

from __future__ import annotations

import pytest
import torch
from monai.losses import GlobalMutualInformationLoss, LocalNormalizedCrossCorrelationLoss
from torch import Tensor, nn

from fmirnet_monai.losses import FoldingLoss, RegistrationLoss, SmoothnessLoss, SSIMLoss
from fmirnet_monai.spatial import warp


class Refuses(nn.Module):
    """A term that must not be computed."""

    def forward(self, *_: Tensor) -> Tensor:
        raise AssertionError("this term has weight 0")


@pytest.mark.parametrize("size", [(14, 17), (12, 11, 13)])
@pytest.mark.parametrize("channels", [1, 2])
def test_loss_is_the_weighted_sum_of_its_terms(size: tuple[int, ...], channels: int) -> None:
    x, ddf = torch.rand(2, 2 * channels, *size), torch.randn(2, len(size), *size)
    loss = RegistrationLoss(
        {"mse": nn.MSELoss(), "ssim": SSIMLoss()},
        {"smoothness": SmoothnessLoss("sum"), "folding": FoldingLoss()},
        {"ssim": 0.1, "smoothness": 1e-3},
    )
    fixed, warped = x[:, channels:], warp(x[:, :channels], ddf)
    expected = {
        "mse": (warped - fixed).square().mean(),
        "ssim": SSIMLoss()(warped, fixed),
        "smoothness": SmoothnessLoss("sum")(ddf),
        "folding": FoldingLoss()(ddf),
    }
    total = expected["mse"] + 0.1 * expected["ssim"] + 1e-3 * expected["smoothness"] + expected["folding"]
    torch.testing.assert_close(loss(ddf, x), total)
    assert loss.values == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-5)


def test_the_papers_loss() -> None:
    """``mse + 0.1 * ssim + 1e-7 * smoothness`` of an identical pair holds the smoothness alone."""
    loss = RegistrationLoss(
        {"mse": nn.MSELoss(), "ssim": SSIMLoss()},
        {"smoothness": SmoothnessLoss("sum")},
        {"ssim": 0.1, "smoothness": 1e-7},
    )
    image = torch.ones(1, 1, 16, 16)
    ddf = 100 * torch.randn(1, 2, 16, 16)
    torch.testing.assert_close(loss(ddf, torch.cat([image, image], 1)), 1e-7 * SmoothnessLoss("sum")(ddf))


def test_aligned_identical_images_have_no_loss() -> None:
    image = torch.rand(2, 1, 16, 18)
    loss = RegistrationLoss({"mse": nn.MSELoss(), "ssim": SSIMLoss()}, {"smoothness": SmoothnessLoss()})
    assert loss(torch.zeros(2, 2, 16, 18), torch.cat([image, image], 1)).abs() < 1e-5


def test_the_field_that_undoes_a_shift_has_the_smallest_loss() -> None:
    """The first image of the input is the moving one, and the field is the pull-back."""
    image = torch.rand(1, 1, 12, 15)
    moving, fixed = image, image.roll(-2, dims=2)
    ddf = torch.zeros(1, 2, 12, 15)
    ddf[:, 0] = 2
    loss = RegistrationLoss({"l1": nn.L1Loss()})
    pair = torch.cat([moving, fixed], 1)
    assert loss(ddf, pair) < 0.3 * min(loss(-ddf, pair), loss(0 * ddf, pair), loss(ddf, pair.flip(1)))


def test_term_of_weight_zero_is_not_computed() -> None:
    loss = RegistrationLoss({"mse": nn.MSELoss(), "off": Refuses()}, {"off too": Refuses()}, {"off": 0, "off too": 0})
    x = torch.rand(1, 2, 8, 8)
    torch.testing.assert_close(loss(torch.zeros(1, 2, 8, 8), x), (x[:, :1] - x[:, 1:]).square().mean())
    assert list(loss.values) == ["mse"]


def test_regularization_alone() -> None:
    ddf = torch.randn(1, 2, 8, 8)
    loss = RegistrationLoss({}, {"smoothness": SmoothnessLoss("mean")}, {"smoothness": 3})
    torch.testing.assert_close(loss(ddf, torch.rand(1, 2, 8, 8)), 3 * SmoothnessLoss("mean")(ddf))


def test_half_precision_prediction_is_taken_in_full_precision() -> None:
    loss = RegistrationLoss({"mse": nn.MSELoss()}, {"smoothness": SmoothnessLoss("sum")})
    ddf, x = torch.randn(1, 2, 8, 9).half(), torch.rand(1, 2, 8, 9)
    torch.testing.assert_close(loss(ddf, x), loss(ddf.float(), x))


@pytest.mark.parametrize(
    "term", [LocalNormalizedCrossCorrelationLoss(3, kernel_size=5), GlobalMutualInformationLoss(), SSIMLoss(win_size=5)]
)
def test_loss_is_that_of_full_precision_within_the_trainers_mixed_precision(term: nn.Module) -> None:
    """Air around a body: its variance is 0, and in half precision that of any faint texture too."""
    pair = torch.zeros(1, 2, 16, 16, 16)
    pair[:, :, 4:12, 4:12, 4:12] = torch.rand(1, 2, 8, 8, 8)
    loss = RegistrationLoss({"term": term})
    gradients, values = [], []
    for mixed in (False, True):
        field = torch.full((1, 3, 16, 16, 16), 0.3, requires_grad=True)
        with torch.autocast("cpu", torch.float16, enabled=mixed):
            values.append(loss(field, pair))
            values.append(loss.dissimilarity(pair[:, :1], pair[:, 1:]))
        values[-2].backward()
        gradients.append(field.grad)
    torch.testing.assert_close(values[2:], values[:2])
    torch.testing.assert_close(gradients[1], gradients[0])


def test_gradient_reaches_the_field_through_each_term() -> None:
    for loss in (RegistrationLoss({"mse": nn.MSELoss()}), RegistrationLoss({}, {"smoothness": SmoothnessLoss()})):
        ddf = torch.randn(1, 2, 8, 8, requires_grad=True)
        loss(ddf, torch.rand(1, 2, 8, 8)).backward()
        assert ddf.grad.abs().max() > 0


def test_unknown_weight_is_named() -> None:
    with pytest.raises(ValueError, match=r"'sim'.*'mse'"):
        RegistrationLoss({"mse": nn.MSELoss()}, weights={"sim": 1.0})


def test_name_in_both_groups_is_refused() -> None:
    with pytest.raises(ValueError, match="'same'"):
        RegistrationLoss({"same": nn.MSELoss()}, {"same": SmoothnessLoss()})


def test_dissimilarity_under_a_mask_is_the_weighted_sum_of_the_terms_over_it() -> None:
    warped, fixed, mask = torch.rand(2, 1, 16, 18), torch.rand(2, 1, 16, 18), torch.rand(2, 1, 16, 18) > 0.4
    loss = RegistrationLoss({"l1": nn.L1Loss(), "ssim": SSIMLoss(), "off": Refuses()}, weights={"ssim": 0.1, "off": 0})
    value = loss.dissimilarity(warped, fixed, mask)
    expected = {"l1": (warped - fixed).abs()[mask].mean().item(), "ssim": SSIMLoss()(warped, fixed, mask).item()}
    assert value.item() == pytest.approx(expected["l1"] + 0.1 * expected["ssim"])
    assert loss.values == pytest.approx(expected)
