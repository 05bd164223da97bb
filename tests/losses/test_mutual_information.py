"""Mutual information of the valid voxels, against MONAI on those voxels alone."""

from __future__ import annotations

import pytest
import torch
from monai.losses import GlobalMutualInformationLoss

from fmirnet_monai.losses import MutualInformationLoss

SHAPES = [(3, 1, 14, 15), (2, 2, 9, 8, 7)]


@pytest.mark.parametrize("kernel_type", ["gaussian", "b-spline"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_without_a_mask_is_monais(shape: tuple[int, ...], reduction: str, kernel_type: str) -> None:
    x, y = torch.rand(shape), torch.rand(shape)
    expected = GlobalMutualInformationLoss(kernel_type, reduction=reduction)(x, y)
    torch.testing.assert_close(MutualInformationLoss(kernel_type, reduction=reduction)(x, y), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kernel_type", ["gaussian", "b-spline"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_under_a_mask_is_monais_of_the_voxels_above_one_half(
    shape: tuple[int, ...], reduction: str, kernel_type: str
) -> None:
    x = torch.rand(shape)
    y, mask = (x + 0.3 * torch.rand(shape)) / 1.3, torch.rand(shape[0], 1, *shape[2:])
    monai = GlobalMutualInformationLoss(kernel_type)
    expected = torch.stack(
        [monai(a[:, m[0] > 0.5][None], b[:, m[0] > 0.5][None]) for a, b, m in zip(x, y, mask, strict=True)]
    )
    if reduction != "none":
        expected = expected.sum() if reduction == "sum" else expected.mean()
    torch.testing.assert_close(MutualInformationLoss(kernel_type, reduction=reduction)(x, y, mask), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_masking_a_box_equals_cropping_it(shape: tuple[int, ...]) -> None:
    x, y = torch.rand(shape), torch.rand(shape)
    box = (..., *[slice(1, 6)] * (len(shape) - 2))
    mask = torch.zeros(shape[0], 1, *shape[2:])
    mask[box] = 1
    torch.testing.assert_close(MutualInformationLoss()(x, y, mask), MutualInformationLoss()(x[box], y[box]))


def test_images_of_two_shapes_are_refused() -> None:
    x, y = torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 17)
    with pytest.raises(ValueError, match=r"\[1, 1, 16, 16\] and \[1, 1, 16, 17\]"):
        MutualInformationLoss()(x, y, torch.ones(1, 1, 16, 16))
