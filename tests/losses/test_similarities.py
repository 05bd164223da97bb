"""The table of similarities."""

from __future__ import annotations

import pytest
import torch

from fmirnet_monai.losses import (
    MULTIMODAL,
    SIMILARITIES,
    LocalNCCLoss,
    RegistrationLoss,
    SSIMLoss,
    compare,
)


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("size", [(20, 22), (14, 12, 13)])
def test_each_is_least_for_a_match_and_takes_a_mask(name: str, size: tuple[int, ...]) -> None:
    loss = SIMILARITIES[name](len(size))
    loss = loss.dissimilarity if isinstance(loss, RegistrationLoss) else loss
    fixed = torch.rand(1, 1, *size)
    warped = fixed.roll(1, 2)
    assert loss(fixed, fixed) < loss(warped, fixed)
    mask = torch.zeros_like(fixed)
    mask[:, :, : size[0] // 2] = 1
    half = fixed[:, :, : size[0] // 2], warped[:, :, : size[0] // 2]
    torch.testing.assert_close(
        compare(loss, torch.where(mask > 0, fixed, warped), fixed, mask), loss(fixed, fixed, mask)
    )
    assert loss(fixed, fixed, mask) < compare(loss, warped, fixed, mask)
    if name not in ("auto", "ssim", "mind"):  # windows of these reach beyond the mask or the image
        torch.testing.assert_close(compare(loss, warped, fixed, mask), loss(half[1], half[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_those_for_different_modalities_do_not_mind_inversion(name: str) -> None:
    loss = SIMILARITIES[name](2)
    loss = loss.dissimilarity if isinstance(loss, RegistrationLoss) else loss
    image = torch.rand(1, 1, 24, 24)
    same, inverted, unlike = loss(image, image), loss(1 - image, image), loss(torch.rand(1, 1, 24, 24), image)
    if name in MULTIMODAL:
        torch.testing.assert_close(inverted, same, atol=1e-4, rtol=1e-3)
    elif name != "lncc":  # squared, so that it does not see the sign
        assert inverted > unlike > same


@pytest.mark.parametrize("dims", [2, 3])
def test_auto_is_mean_squares_and_a_tenth_of_ssim_in_2d_and_local_correlation_in_3d(dims: int) -> None:
    x, y = torch.rand(1, 1, *[16] * dims), torch.rand(1, 1, *[16] * dims)
    expected = (x - y).square().mean() + 0.1 * SSIMLoss()(x, y) if dims == 2 else LocalNCCLoss(kernel_size=5)(x, y)
    torch.testing.assert_close(SIMILARITIES["auto"](dims).dissimilarity(x, y), expected)
