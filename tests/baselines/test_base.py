"""What the classical methods share: geometry, settings, and the identity."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from fmirnet_monai.baselines import (
    ClassicalRegistrar,
    DemonsRegistrar,
    ElastixRegistrar,
    IdentityRegistrar,
    SynRegistrar,
    TimeVaryingRegistrar,
)
from fmirnet_monai.baselines.base import Masks, shrink_factors
from fmirnet_monai.spatial import Grid

CLASSES = [DemonsRegistrar, ElastixRegistrar, SynRegistrar, TimeVaryingRegistrar]


@pytest.mark.parametrize("method", CLASSES)
def test_stated_grid_holds_valid_settings(method: type[ClassicalRegistrar]) -> None:
    trials = [dict(zip(method.GRID, values, strict=True)) for values in itertools.product(*method.GRID.values())]
    assert len(trials) > 1
    for trial in trials:
        described = method(**trial).describe(Grid((16, 16), np.eye(3)))
        assert all(described[key] == value for key, value in trial.items())


def test_settings_stand_in_the_report() -> None:
    described = SynRegistrar(flow_sigma=1.0).describe(Grid((16, 16), np.eye(3)))
    assert described["flow_sigma"] == 1.0 and described["iterations"] == (100, 100, 50)
    assert "intensity" not in described
    json.dumps(described)


@pytest.mark.parametrize("registrar", [DemonsRegistrar(), ElastixRegistrar(iterations=20, levels=1)])
def test_voxels_of_the_result_depend_on_the_relative_spacing_alone(registrar: ClassicalRegistrar) -> None:
    pair = torch.rand(2, 24, 20, generator=torch.Generator().manual_seed(0))
    seen = torch.ones(2, 24, 20, dtype=torch.bool)
    cosine, sine = np.cos(0.4), np.sin(0.4)
    spacing = np.diag([1.0, 1.5, 1.0])
    mirrored_and_turned = np.array([[-cosine, sine, 9.0], [sine, cosine, 4.0], [0, 0, 1]]) @ spacing

    def found(affine: np.ndarray) -> torch.Tensor:
        return registrar.deform(pair, seen, Grid((24, 20), affine), {}).ddf

    plain = found(spacing)
    for affine in (mirrored_and_turned, np.diag([0.5, 0.75, 1.0])):  # elastix adds up in the order its threads end in
        torch.testing.assert_close(found(affine), plain, atol=1e-3, rtol=0)
    assert not torch.allclose(found(np.eye(3)), plain, atol=1e-2)


def test_volume_of_one_slice_is_registered_in_its_plane(case: Callable) -> None:
    moving, fixed, _, _ = case(2)
    registrar = DemonsRegistrar()

    def thick(image: MetaTensor) -> MetaTensor:
        affine = torch.eye(4, dtype=torch.double)
        affine[:2, :2], affine[:2, 3] = image.affine[:2, :2], image.affine[:2, 2]
        return MetaTensor(image.as_tensor()[..., None], affine=affine)

    found = registrar.estimate(thick(moving), thick(fixed))[1]
    assert torch.allclose(found.ddf[:2, ..., 0], registrar.estimate(moving, fixed)[1].ddf, atol=1e-4)
    assert found.ddf[2].abs().max() == 0


def test_pyramid_spares_thick_slices_and_short_axes() -> None:
    grid = Grid((128, 128, 60), np.diag([1.0, 1.0, 3.0, 1.0]))
    assert shrink_factors(grid, 3) == [[4, 4, 1], [2, 2, 1], [1, 1, 1]]
    assert shrink_factors(Grid((128, 60, 10), np.eye(4)), 3) == [[4, 3, 1], [2, 2, 1], [1, 1, 1]]


def test_too_few_slices_are_refused() -> None:
    image = torch.rand(1, 20, 20, 3)
    with pytest.raises(ValueError, match="demons needs two or three axes of at least 4 voxels"):
        DemonsRegistrar().estimate(image, image)


def test_failure_is_one_line_that_names_the_method() -> None:
    class Broken(DemonsRegistrar):
        def displacement(self, moving: torch.Tensor, fixed: torch.Tensor, grid: Grid, masks: Masks) -> torch.Tensor:
            raise RuntimeError("here\nITK ERROR: Thing(0x12): no descent.\n")

    with pytest.raises(ValueError, match=r"^demons failed: no descent\.$"):
        Broken().deform(torch.rand(2, 20, 20), torch.ones(2, 20, 20, dtype=torch.bool), Grid((20, 20), np.eye(3)), {})


def test_identity_moves_nothing_and_leaves_the_affine_stage(case: Callable) -> None:
    moving, fixed, _, _ = case(2, "oblique")
    affine, field = IdentityRegistrar().estimate(moving, fixed)
    assert field.ddf.abs().max() == 0 and np.array_equal(affine.matrix, np.eye(3))
    shift = torch.eye(3, dtype=torch.double)
    shift[:2, 2] = torch.tensor([3.0, -2.0])
    moved = MetaTensor(moving.as_tensor(), affine=shift @ moving.affine)
    affine, field = IdentityRegistrar(affine="translation").estimate(moved, moving)
    assert field.ddf.abs().max() == 0 and np.allclose(affine.matrix, shift, atol=0.2)
