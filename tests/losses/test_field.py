"""The endpoint error by hand, where voxels are unknown, and at its smallest."""

from __future__ import annotations

import pytest
import torch

from fmirnet_monai.losses import EndpointError


@pytest.mark.parametrize("size", [(5, 6), (4, 5, 3)])
def test_endpoint_error_is_the_mean_distance_in_voxels(size: tuple[int, ...]) -> None:
    ddf, target = torch.randn(2, 2, len(size), *size)
    torch.testing.assert_close(EndpointError()(ddf, target), (ddf - target).norm(dim=1).mean(), atol=1e-4, rtol=1e-4)


def test_voxels_without_a_target_neither_count_nor_pull() -> None:
    ddf = torch.randn(2, 2, 6, 6, requires_grad=True)
    target = torch.randn(2, 2, 6, 6)
    target[1] = torch.nan
    target[0, 1, :3] = torch.nan
    loss = EndpointError()(ddf, target)
    torch.testing.assert_close(loss, EndpointError()(ddf[:1, :, 3:], target[:1, :, 3:]))
    loss.backward()
    assert ddf.grad.isfinite().all()
    assert ddf.grad[1].abs().max() == ddf.grad[0, :, :3].abs().max() == 0
    assert ddf.grad[0, :, 3:].abs().min() > 0


def test_no_target_at_all_is_no_loss_and_the_right_field_has_a_gradient() -> None:
    ddf = torch.zeros(1, 2, 4, 4, requires_grad=True)
    assert EndpointError()(ddf, torch.full_like(ddf, torch.nan)) == 0
    loss = EndpointError()(ddf, torch.zeros(1, 2, 4, 4))
    loss.backward()
    assert loss < 2e-3
    assert ddf.grad.isfinite().all()
