"""The cascade with stages whose fields are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fmirnet_monai.networks.cascade import Cascade
from fmirnet_monai.spatial import identity_grid, warp


class Shift(nn.Module):
    """Gives the same displacement everywhere and keeps the pair it saw."""

    def __init__(self, *vector: float) -> None:
        super().__init__()
        self.vector = torch.tensor(vector)

    def forward(self, pair: Tensor) -> Tensor:
        self.seen = pair
        dims = len(self.vector)
        return self.vector.reshape(1, dims, *[1] * dims).expand(pair.shape[0], dims, *pair.shape[2:])


class Zoom(nn.Module):
    """Pulls every voxel towards index 0: displacement ``factor * index`` along each axis."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, pair: Tensor) -> Tensor:
        return self.factor * identity_grid(pair).expand(pair.shape[0], -1, *pair.shape[2:])


@pytest.mark.parametrize("vectors", [((1.0, -2.0), (0.5, 3.0)), ((1.0, 0.0, 2.0), (-2.0, 1.0, 0.5), (0.0, 1.0, 1.0))])
def test_shifts_add_up(vectors: tuple[tuple[float, ...], ...]) -> None:
    dims = len(vectors[0])
    field = Cascade(dims, 1, 1, [Shift(*v) for v in vectors])(torch.rand(2, 2, *(9, 8, 7)[:dims]))
    expected = torch.tensor(vectors).sum(0).reshape(1, dims, *[1] * dims)
    torch.testing.assert_close(field, expected.expand_as(field))


def test_each_stage_sees_the_moving_image_warped_by_all_before_it() -> None:
    stages = [Shift(1.0, 0.0), Shift(0.0, -2.0), Shift(0.0, 0.0)]
    x = torch.rand(1, 4, 12, 10)
    Cascade(2, 2, 1, stages)(x)
    assert torch.equal(stages[0].seen, x)
    for stage, vector in zip(stages[1:], [(1.0, 0.0), (1.0, -2.0)], strict=True):
        assert torch.equal(stage.seen[:, 2:], x[:, 2:])
        shift = torch.tensor(vector).reshape(1, 2, 1, 1).expand(1, 2, 12, 10)
        torch.testing.assert_close(stage.seen[:, :2], warp(x[:, :2], shift))


def test_fields_are_composed_in_the_order_that_warping_has() -> None:
    """A zoom and a shift do not commute: the first stage's field touches the image first."""
    field = Cascade(2, 1, 1, [Zoom(-0.5), Shift(2.0, 0.0)])(torch.rand(1, 2, 20, 20))
    inside = field[..., :16, :]
    y = torch.arange(16.0).reshape(1, 16, 1)
    torch.testing.assert_close(inside[:, 0], (0.5 * (y + 2) - y).expand(1, 16, 20))


def test_cascade_without_stages_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stages .*0"):
        Cascade(2, 1, 1, [])
