"""What the tests of several networks share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmirnet_monai.spatial import warp


@pytest.fixture
def learn_to_register() -> Callable[..., None]:
    """Train a 2-D network on one pair, blobs moved by (2, -3) voxels, and check what it has learnt.

    Arguments: network, steps of Adam, learning rate, share of the squared difference that may be left, and tolerance in
    voxels of the mean displacement.
    """
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(36.0), indexing="ij")

    def blobs(dy: float, dx: float) -> Tensor:
        shapes = ((14, 12, 4.0), (26, 20, 5.0), (16, 26, 3.0))
        image = [torch.exp(-((y - cy - dy) ** 2 + (x - cx - dx) ** 2) / (2 * s * s)) for cy, cx, s in shapes]
        return torch.stack(image).sum(0).reshape(1, 1, 40, 36)

    def learn(net: nn.Module, steps: int, learning_rate: float, left: float, atol: float) -> None:
        moving, fixed = blobs(0, 0), blobs(2, -3)
        pair = torch.cat([moving, fixed], dim=1)
        optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate)
        for _ in range(steps):
            optimizer.zero_grad()
            F.mse_loss(warp(moving, net(pair)), fixed).backward()
            optimizer.step()
        field = net(pair)
        assert F.mse_loss(warp(moving, field), fixed) < left * F.mse_loss(moving, fixed)
        # the content of the moving image is found at the fixed position minus its motion
        shift = (field * fixed).sum((0, 2, 3)) / fixed.sum()
        torch.testing.assert_close(shift, torch.tensor([-2.0, 3.0]), atol=atol, rtol=0)

    return learn
