"""Series: known motion found, each frame from its neighbour's map on; means that prefer no frame; jitter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from fmirnet_monai.registration import Registrar, SeriesRegistration, register_series
from fmirnet_monai.registration.result import map_points
from fmirnet_monai.spatial import Affine, DisplacementField, Grid, resample, smooth
from fmirnet_monai.spatial.image import on_grid

SIZE, COUNT, STEP = 56, 5, 4.5  # pixels, frames, pixels of motion from frame to frame
EDGE = 8  # pixels of a frame in which what comes into view and goes out of it is not looked at
SPACING = (1.5, 0.8)


def motion(number: int) -> DisplacementField:
    """The known map from frame 0 to a frame: it moves along the first axis, and bends."""
    grid = Grid((SIZE, SIZE), np.diag([*SPACING, 1.0]))
    x = torch.arange(SIZE, dtype=torch.float32)
    bend = 0.4 * number * torch.sin(2 * math.pi * x / SIZE)
    return DisplacementField(
        torch.stack([STEP * number + bend[:, None].expand(SIZE, SIZE), torch.zeros(SIZE, SIZE)]), grid
    )


@pytest.fixture(scope="module")
def frames() -> list[Tensor]:
    """A texture that moves; each frame shows what the map says, from a larger first one."""
    shown = smooth(torch.rand(1, 1, 4 * SIZE, SIZE, generator=torch.Generator().manual_seed(1)), 2.5)[0]
    affine = np.diag([*SPACING, 1.0])
    affine[0, 2] = -3 * SIZE * SPACING[0]
    wide = Grid((4 * SIZE, SIZE), affine)
    x = torch.arange(4 * SIZE, dtype=torch.float32) - 3 * SIZE
    result = []
    for number in range(COUNT):
        back = torch.stack([x, torch.zeros_like(x)])
        for _ in range(50):  # x + motion(x) = y
            back[0] = x - STEP * number - 0.4 * number * torch.sin(2 * math.pi * back[0] / SIZE)
        ddf = torch.zeros(2, 4 * SIZE, SIZE)
        ddf[0] = (back[0] - x)[:, None]
        grid = motion(0).grid
        result.append(on_grid(resample(on_grid(shown, wide), grid, DisplacementField(ddf, wide))[0], grid))
    return result


@pytest.fixture(scope="module")
def registrar() -> Registrar:
    return Registrar(spatial_dims=2, spatial_size=64)


@pytest.fixture(scope="module")
def found(frames: list[Tensor], registrar: Registrar) -> SeriesRegistration:
    return register_series(frames, registrar)


def error(found: DisplacementField, known: Tensor) -> float:
    """Mean distance to the known displacement in pixels, of what stays inside the frame."""
    lands = torch.arange(SIZE)[:, None] + known[0]
    inner = (lands > EDGE) & (lands < SIZE - EDGE)
    inner[:EDGE] = inner[-EDGE:] = inner[:, :EDGE] = inner[:, -EDGE:] = False
    return float((found.ddf - known).norm(dim=0)[inner].mean())


def test_known_motion_is_found_from_neighbour_to_neighbour(
    frames: list[Tensor], found: SeriesRegistration, registrar: Registrar
) -> None:
    from_neighbours = [error(field, motion(number).ddf) for number, field in enumerate(found.maps)]
    assert from_neighbours[0] == 0 and max(from_neighbours) < 0.7
    alone = register_series(frames, registrar, neighbours=False).maps
    assert torch.equal(alone[1].ddf, found.maps[1].ddf)
    assert error(alone[-1], motion(COUNT - 1).ddf) > 5  # pixels, of 18: too far for one step


def test_it_goes_outwards_from_the_reference(frames: list[Tensor], registrar: Registrar) -> None:
    kept: dict[tuple[int, int], DisplacementField] = {}
    middle = register_series(frames[:4], registrar, 2, kept=kept)
    assert [number for _, number in kept] == [1, 3, 0] and middle.index == 2
    assert not middle.maps[2].ddf.any()
    there = DisplacementField.of(middle.between(0, 2), motion(0).grid)[0]  # through the inverse of frame 0's map
    assert error(there, motion(2).ddf) < 0.7


def test_maps_that_are_kept_are_not_made_again(
    frames: list[Tensor], found: SeriesRegistration, registrar: Registrar
) -> None:
    class Stopped(dict):
        def __setitem__(self, key: tuple[int, int], field: DisplacementField) -> None:
            super().__setitem__(key, field)
            if len(self) == 2:
                raise KeyboardInterrupt

    kept = Stopped()
    with pytest.raises(KeyboardInterrupt):
        register_series(frames[:4], registrar, kept=kept)
    rest = {key: DisplacementField(field.ddf.clone(), field.grid) for key, field in kept.items()}
    again = register_series(frames[:4], registrar, kept=rest)
    assert len(kept) == 2 and len(rest) == 3 and again.maps[1] is rest[0, 1]
    assert all(torch.equal(one.ddf, other.ddf) for one, other in zip(again.maps, found.maps, strict=False))


def test_points_go_from_frame_to_frame_and_back(found: SeriesRegistration) -> None:
    points = np.array([[24.0, 20.0], [30.0, 15.0]])
    there = map_points(found.between(1, 3), points)
    assert np.abs(map_points(found.between(3, 1), there) - points).max() < 0.02
    through = map_points(found.between(None, 3), map_points(found.between(1, None), points))
    assert np.abs(there - through).max() < 1e-6
    assert np.abs((there - points)[:, 0] - 2 * STEP * SPACING[0]).max() < 1.5 and found.between(2, 2).dims == 2


def test_a_mean_prefers_no_frame(frames: list[Tensor], registrar: Registrar) -> None:
    found = register_series(frames[:4], registrar, "mean", rounds=2)
    assert found.index is None
    mean = torch.stack([field.ddf for field in found.maps]).mean(0)
    assert mean.norm(dim=0).max() < 0.02  # voxels, twice what an inverse is solved to
    grid = Grid.of(found.reference)
    warped = [resample(frame, grid, field) for frame, field in zip(frames, found.maps, strict=False)]
    everywhere = torch.stack([inside for _, inside in warped]).all(0)
    average = torch.stack([values for values, _ in warped]).mean(0)
    assert torch.allclose(average[:, everywhere], torch.as_tensor(found.reference)[:, everywhere], atol=1e-5)
    spread = torch.stack([values[0][everywhere] for values, _ in warped]).std(0).mean()
    lying = torch.stack([torch.as_tensor(frame)[0][everywhere] for frame in frames[:4]]).std(0).mean()
    assert spread < 0.3 * lying


def test_jitter_is_the_second_difference_in_mm() -> None:
    grid = Grid((4, 5, 6), np.diag([2.0, 1.0, 1.0, 1.0]))
    image = on_grid(torch.rand(1, 4, 5, 6), grid)

    def series(steps: Sequence[float]) -> SeriesRegistration:
        fields = [torch.zeros(3, 4, 5, 6) for _ in steps]
        for field, step in zip(fields, steps, strict=True):
            field[0] = step
        return SeriesRegistration(image, [DisplacementField(field, grid) for field in fields], 0)

    assert series([0, 1, 2, 3, 4]).jitter() == {"jitter": 0.0, "jitter_95": 0.0}
    assert series([0, 1, 0, 1, 0]).jitter() == pytest.approx({"jitter": 4.0, "jitter_95": 4.0})  # 2 voxels of 2 mm
    assert all(math.isnan(value) for value in series([0, 1]).jitter().values())


@pytest.mark.parametrize(
    ("count", "options", "told"),
    [
        (1, {}, "two or more, got 1"),
        (3, {"reference": 3}, "a frame from 0 to 2, got 3"),
        (3, {"reference": -1}, "a frame from 0 to 2, got -1"),
        (3, {"reference": "median"}, "mean or a frame"),
        (3, {"reference": "mean", "rounds": 0}, "rounds must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_told(
    frames: list[Tensor], registrar: Registrar, count: int, options: dict, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        register_series(frames[:count], registrar, **options)


def test_a_frame_that_fails_is_named(frames: list[Tensor], registrar: Registrar) -> None:
    empty = on_grid(torch.zeros(1, SIZE, SIZE), motion(0).grid)
    with pytest.raises(ValueError, match="frame 1: moving is constant"):
        register_series([frames[0], empty], registrar)


def test_a_neighbour_s_map_that_fits_worse_than_none_is_left_out(frames: list[Tensor], registrar: Registrar) -> None:
    wrong = {(0, 1): DisplacementField(torch.full((2, SIZE, SIZE), 15.0), motion(0).grid)}
    found = register_series([frames[0], frames[1], frames[1]], registrar, kept=wrong)
    assert torch.equal(found.maps[2].ddf, register_series(frames[:2], registrar).maps[1].ddf)


def test_an_affine_stage_is_in_the_maps(frames: list[Tensor]) -> None:
    turned = Affine(np.array([[1.0, 0.0, 6.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    moved = on_grid(resample(frames[0], motion(0).grid, turned.inverse())[0], motion(0).grid)
    registrar = Registrar(spatial_dims=2, spatial_size=64, affine="translation")
    field = register_series([frames[0], moved], registrar).maps[1]
    affine, rest = registrar.estimate(moved, frames[0])
    assert abs(affine.matrix[0, 2] - 6.0) < 1
    assert torch.equal(field.ddf, DisplacementField.of(rest.then(affine), field.grid)[0].ddf)
    assert error(field, torch.tensor([6.0 / SPACING[0], 0.0])[:, None, None].expand(2, SIZE, SIZE)) < 0.7
