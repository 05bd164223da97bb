from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fmirnet_monai.networks import FlipAverage


class Known(nn.Module):
    """The pair's moving image as displacement along each axis, and a constant."""

    def __init__(self, constant: float) -> None:
        super().__init__()
        self.constant = constant
        self.passes = 0

    def forward(self, pair: Tensor) -> Tensor:
        self.passes += len(pair)
        return pair[:, :1].repeat(1, pair.dim() - 2, *[1] * (pair.dim() - 2)) + self.constant


@pytest.mark.parametrize("size", [(5, 6), (4, 5, 6)])
def test_what_is_not_the_images_own_averages_out(size: tuple[int, ...]) -> None:
    """A network that always adds the same shift has it cancelled, as a mirrored shift is its opposite."""
    network = Known(2.0)
    ddf = FlipAverage(network)(torch.zeros(3, 2, *size))
    torch.testing.assert_close(ddf, torch.zeros(3, len(size), *size))
    assert network.passes == 3 * 2 ** len(size)


def test_each_mirrored_field_is_turned_back() -> None:
    class Gradient(nn.Module):
        """Turns with the image: its gradient."""

        def forward(self, pair: Tensor) -> Tensor:
            return torch.cat(torch.gradient(pair[:, :1], dim=(2, 3)), dim=1)

    pair = torch.rand(2, 2, 7, 8)
    torch.testing.assert_close(FlipAverage(Gradient())(pair), Gradient()(pair))
