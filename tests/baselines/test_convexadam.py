"""ConvexAdam on known deformations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fmirnet_monai.baselines import ConvexAdamRegistrar


@pytest.mark.parametrize("kind", ["flipped", "oblique"])
def test_known_deformation_is_found(kind: str, registers: Callable) -> None:
    registers(ConvexAdamRegistrar(grid_spacing=3, adam_spacing=1, smoothness=0.5), 3, kind)


def test_same_input_same_numbers(case: Callable, capfd: pytest.CaptureFixture) -> None:
    moving, fixed, _, _ = case(3)
    registrar = ConvexAdamRegistrar(grid_spacing=4, iterations=10)
    first, second = (registrar.estimate(moving, fixed)[1].ddf for _ in range(2))
    assert torch.equal(first, second) and first.abs().max() > 0.5
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid_spacing": 0}, "grid_spacing must be at least 1 voxel, got 0"),
        ({"reach": 0}, "reach must be at least 1, got 0"),
        ({"smoothness": -1.0}, "smoothness must be at least 0, got -1.0"),
        ({"iterations": -1}, "iterations must be at least 0, got -1"),
        ({"adam_spacing": 0}, "adam_spacing must be at least 1 voxel, got 0"),
    ],
)
def test_wrong_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvexAdamRegistrar(**settings)


def test_slices_are_refused(case: Callable) -> None:
    moving, fixed, _, _ = case(2)
    with pytest.raises(ValueError, match="registers volumes"):
        ConvexAdamRegistrar().estimate(moving, fixed)


@pytest.mark.parametrize("spacings", [(3, 2), (5, 3)])
def test_masked_volumes_whose_sides_are_no_multiple_of_the_grids(spacings: tuple[int, int], case: Callable) -> None:
    moving, fixed, _, _ = case(3)  # 40 x 36 x 20
    mask = torch.ones_like(fixed)
    mask[:, :8] = 0
    registrar = ConvexAdamRegistrar(grid_spacing=spacings[0], adam_spacing=spacings[1], iterations=10)
    found, plain = (registrar.estimate(moving, fixed, fixed_mask=m)[1].ddf for m in (mask, None))
    assert found.shape == plain.shape and torch.isfinite(found).all() and found.abs().max() > 0.5
