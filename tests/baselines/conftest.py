"""Pairs that all classical methods are tested on, and what is asked of each of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from fmirnet_monai.data import read_image, read_label
from fmirnet_monai.registration import PairRegistrar
from fmirnet_monai.registration.measure import label_metrics
from fmirnet_monai.registration.result import map_points
from fmirnet_monai.spatial import DisplacementField, Grid, integrate, resample, smooth


class Case(NamedTuple):
    """A pair with landmarks, ``(N, D)`` in RAS+ mm."""

    moving: MetaTensor
    fixed: MetaTensor
    moving_points: NDArray[np.float64]
    fixed_points: NDArray[np.float64]


Slices = tuple[MetaTensor, MetaTensor, MetaTensor, MetaTensor]


def geometry(dims: int, kind: str) -> NDArray[np.float64]:
    """Unequal spacing and an origin, flipped along the first axis, or turned about an oblique one and flipped."""
    affine = np.diag([*[1.0, 1.3, 2.0][:dims], 1.0])
    if kind == "flipped":
        affine[0, 0] *= -1
    if kind == "oblique":
        turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(dims, dims)))
        affine[:-1, :-1] = turn @ affine[:-1, :-1]
    affine[:dims, dims] = [12.0, -7.0, 5.0][:dims]
    return affine


@pytest.fixture
def case() -> Callable[..., Case]:
    """Maker of a texture and the same, deformed, with ``dims`` axes and a geometry of :py:func:`geometry`."""

    def make(dims: int, kind: str = "plain") -> Case:
        generator = torch.Generator().manual_seed(0)
        grid = Grid((64, 56) if dims == 2 else (40, 36, 20), geometry(dims, kind))
        image = smooth(torch.rand(1, 1, *grid.shape, generator=generator), 2.0)[0]
        moving = MetaTensor((image - image.min()) / (image.max() - image.min()), affine=torch.tensor(grid.affine))
        velocity = smooth(torch.randn(1, dims, *grid.shape, generator=generator), 4.0)
        for axis, size in enumerate(grid.shape):  # nothing moves at the border, where ANTs lets nothing move
            fade = torch.sin(torch.linspace(0, torch.pi, size))
            velocity = velocity * fade.reshape(-1, *[1] * (dims - 1 - axis))
        velocity = velocity * (3.5 / velocity.norm(dim=1).max())
        truth = DisplacementField(integrate(velocity, 5)[0], grid)
        moved = truth.ddf.norm(dim=0) > 1
        sites = moved.nonzero()[:: max(1, int(moved.sum()) // 200)]
        points = grid.to_world(sites.numpy())
        fixed = MetaTensor(resample(moving, truth.grid, truth)[0], affine=moving.affine)
        return Case(moving, fixed, map_points(truth, points), points)

    return make


@pytest.fixture
def registers(case: Callable[..., Case]) -> Callable[[PairRegistrar, int, str], None]:
    """Asserts that a method brings images and landmarks together, in the right direction and without tearing."""

    def check(registrar: PairRegistrar, dims: int, kind: str) -> None:
        moving, fixed, moving_points, fixed_points = case(dims, kind)
        result = registrar.register(moving, fixed, moving_points=moving_points, fixed_points=fixed_points)
        metrics = result.metrics
        assert 1 - metrics["ncc"] < 0.3 * (1 - metrics["before_ncc"])
        assert metrics["tre_mean"] < 0.6 * metrics["before_tre_mean"]
        backwards = np.linalg.norm(map_points(result.map, moving_points) - fixed_points, axis=1).mean()
        assert backwards > metrics["before_tre_mean"]
        assert metrics["folding"] < 0.5

    return check


@pytest.fixture
def repeats(case: Callable[..., Case], capfd: pytest.CaptureFixture) -> Callable[[PairRegistrar], None]:
    """Asserts that a method gives the same numbers twice, not all of them zero, and prints nothing."""

    def check(registrar: PairRegistrar) -> None:
        moving, fixed, _, _ = case(2)
        first, second = (registrar.estimate(moving, fixed)[1].ddf for _ in range(2))
        assert torch.equal(first, second) and first.abs().max() > 0.5
        assert capfd.readouterr() == ("", "")

    return check


@pytest.fixture
def acdc_slices(real_data: Path) -> Slices:
    """The middle slice of a heart at end-diastole (moving) and end-systole (fixed): two images, two labels."""
    base = real_data / "acdc" / "patient001_"
    volumes = [
        *(read_image(f"{base}{phase}.nii.gz") for phase in ("ED", "ES")),
        *(read_label(f"{base}{phase}_gt.nii.gz") for phase in ("ED", "ES")),
    ]
    middle = volumes[0].shape[-1] // 2
    slices = [MetaTensor(torch.as_tensor(np.asarray(v)[..., middle]), affine=torch.eye(3)) for v in volumes]
    return slices[0], slices[1], slices[2], slices[3]


@pytest.fixture
def dice_gain(acdc_slices: Slices) -> Callable[[PairRegistrar], float]:
    """By how much a method raises the mean Dice of the real slices."""

    def measure(registrar: PairRegistrar) -> float:
        moving, fixed, moving_label, fixed_label = acdc_slices
        found = registrar.estimate(moving, fixed)[1]
        dice = [
            label_metrics(resample(moving_label, field.grid, field, mode="nearest")[0], fixed_label)["dice"]
            for field in (DisplacementField.identity(found.grid), found)
        ]
        return dice[1] - dice[0]

    return measure
