"""Filters in blocks, against the whole matrix."""

import pytest
import torch

from fmirnet_monai.spatial.smoothing import BLOCK, windows


@pytest.mark.parametrize("axis", [0, 1, 3, 4])
@pytest.mark.parametrize("beyond", [0, 3])
@pytest.mark.parametrize("size", [7, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_blocks_give_what_the_matrix_gives(size: int, beyond: int, axis: int) -> None:
    """Values, and gradients of first and second order."""
    torch.manual_seed(0)
    kernel = windows(torch.rand(7, dtype=torch.double), size, beyond)
    assert kernel.matrix.shape == (size + 2 * beyond - 6, size)
    tensor = torch.rand(2, 3, 2, 3, 2, dtype=torch.double)
    tensor = tensor.movedim(axis, 0)[:1].repeat(size, 1, 1, 1, 1).mul_(torch.rand(size, 1, 1, 1, 1)).movedim(0, axis)
    tensor.requires_grad_()
    found = kernel.along(axis, tensor)
    expected = torch.tensordot(kernel.matrix, tensor, ([1], [axis])).movedim(0, axis)
    torch.testing.assert_close(found, expected)
    (gradient,), (wanted,) = (torch.autograd.grad(y.pow(3).sum(), tensor, create_graph=True) for y in (found, expected))
    torch.testing.assert_close(gradient, wanted)
    second = [torch.autograd.grad(g.square().sum(), tensor, retain_graph=True)[0] for g in (gradient, wanted)]
    torch.testing.assert_close(*second)


def test_a_filter_made_in_inference_mode_serves_gradients_later() -> None:
    with torch.inference_mode():
        kernel = windows(torch.ones(3) / 3, 40, 1)
        kernel.along(0, torch.rand(40))
    tensor = torch.rand(40, requires_grad=True)
    kernel.along(0, tensor).sum().backward()
    torch.testing.assert_close(tensor.grad, kernel.matrix.sum(0))


def test_a_filter_works_in_the_tensor_s_precision() -> None:
    kernel = windows(torch.ones(3) / 3, 40, 1)
    for dtype in (torch.float64, torch.bfloat16, torch.float32):
        with torch.autocast("cpu", torch.bfloat16):
            assert kernel.along(1, torch.rand(2, 40).to(dtype)).dtype == dtype
