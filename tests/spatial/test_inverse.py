"""The inverse of fields that stretch strongly, against np.interp, which inverts a monotone line exactly."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fmirnet_monai.spatial import invert


def line(n: int, stretch: float, rng: np.random.Generator) -> NDArray:
    """Where the voxels 0..n-1 go: monotone, onto 0..n-1, some steps ``stretch`` times as long as the shortest."""
    steps = stretch ** rng.uniform(0, 1, n - 1)
    ends = np.concatenate([[0.0], np.cumsum(steps)])
    return ends * (n - 1) / ends[-1]


@pytest.mark.parametrize(("size", "stretch"), [((60, 47), 50.0), ((19, 24, 17), 20.0)])
def test_strongly_stretching_field(size: tuple[int, ...], stretch: float) -> None:
    rng = np.random.default_rng(0)
    lines = [line(n, stretch, rng) for n in size]
    ddf = np.stack(np.meshgrid(*[e - np.arange(len(e)) for e in lines], indexing="ij"))
    inverse, residual = invert(torch.from_numpy(ddf)[None], tolerance=1e-6)
    assert residual <= 1e-6
    exact = [np.interp(np.arange(len(e)), e, np.arange(len(e))) - np.arange(len(e)) for e in lines]
    assert np.abs(inverse[0].numpy() - np.stack(np.meshgrid(*exact, indexing="ij"))).max() < 1e-4


def test_voxels_that_get_stuck_start_again_from_a_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    """A swirl of nearly a whole turn: Newton steps from far off miss, those from the neighbour's solution don't."""
    y, x = np.mgrid[-70:71, -70:71].astype(float)
    angle = 6.0 * np.exp(-(x**2 + y**2) / 1800)
    turned = np.stack([np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x])
    ddf = torch.from_numpy(turned - np.stack([y, x]))[None]
    assert invert(ddf)[1] <= 0.01
    monkeypatch.setattr("fmirnet_monai.spatial.inverse.ATTEMPTS", 1)
    assert invert(ddf)[1] > 0.01
