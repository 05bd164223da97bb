"""Display: right way up, through what matters, with what lies there."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fmirnet_monai.report.display import Display, choose_voxel, obliqueness
from fmirnet_monai.spatial import Grid


def rotation(degrees: float) -> NDArray[np.float64]:
    turn = np.eye(4)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn[1:3, 1:3] = [[c, -s], [s, c]]
    return turn


AFFINES = {
    "RAS": np.diag([1.0, 2, 3, 1]),
    "LPS": np.diag([-1.0, -2, 3, 1]),
    "inferior": np.diag([1.0, -2, -3, 1]),
    "permuted": np.array([[0, 0, 3.0, 5], [-1, 0, 0, 7], [0, 2, 0, 9], [0, 0, 0, 1]]),
    "oblique": rotation(20) @ np.diag([-1.0, 2, 3, 1]),
}


@pytest.mark.parametrize("kind", AFFINES)
def test_marker_lands_where_a_radiologist_expects_it(kind: str) -> None:
    grid = Grid((12, 14, 16), AFFINES[kind])
    display = Display(grid)
    # the voxel farthest towards the patient's right, front and head
    world = grid.points() - grid.points().mean(0)
    corner = np.unravel_index((world / np.ptp(world, axis=0) @ [1, 1, 1]).argmax(), grid.shape)
    volume = np.zeros(grid.shape)
    volume[corner] = 1
    shown = display.take(volume)
    assert shown.shape == display.shape
    assert shown[0, 0, 0] == 1 and shown.sum() == 1
    np.testing.assert_allclose(display.place(grid.to_world(np.array([corner]))), [[0, 0, 0]], atol=1e-9)
    planes = display.planes(corner)
    assert [plane.name for plane in planes] == ["axial", "coronal", "sagittal"]
    assert [plane.edges for plane in planes] == ["RLAP", "RLSI", "APSI"]
    assert [plane.start for plane in planes] == [0, 0, 0]
    assert obliqueness(grid) == pytest.approx(20 if kind == "oblique" else 0, abs=1e-4)


@pytest.mark.parametrize("kind", AFFINES)
def test_slices_are_numbered_and_placed_as_in_the_file(kind: str) -> None:
    grid = Grid((12, 14, 16), AFFINES[kind])
    display = Display(grid)
    voxel = np.array([3, 5, 9])
    centre = (np.array(grid.shape) - 1) / 2
    for plane in display.planes(voxel):
        axis = display.axes[plane.across]
        count = grid.shape[axis]
        assert (count - 1 - plane.start if plane.reversed else plane.start) == voxel[axis]
        middle = centre.copy()
        middle[axis] = voxel[axis]
        place = grid.to_world(middle)[2 - plane.across]
        assert plane.first + plane.step * plane.start == pytest.approx(place)


@pytest.mark.parametrize("kind", AFFINES)
def test_displacements_turn_with_the_image(kind: str) -> None:
    grid = Grid((5, 6, 7), AFFINES[kind])
    display = Display(grid)
    rng = np.random.default_rng(0)
    ddf = rng.normal(size=(3, *grid.shape))
    start = np.indices(grid.shape).reshape(3, -1).T
    moved = grid.to_world(start + ddf.reshape(3, -1).T)
    wanted = display.place(moved) - display.place(grid.to_world(start.astype(float)))
    shown = display.vectors(ddf)
    at = np.rint(display.place(grid.to_world(start.astype(float)))).astype(int)
    np.testing.assert_allclose(shown[:, at[:, 0], at[:, 1], at[:, 2]].T, wanted, atol=1e-9)


@pytest.mark.parametrize(
    "affine", [np.diag([-1.0, -1, 1]), np.diag([1.0, 1, 1]), np.array([[0, -2.0, 0], [-1, 0, 0], [0, 0, 1]])]
)
def test_2d_images_lie_as_viewers_show_them(affine: NDArray) -> None:
    image = np.arange(12.0).reshape(3, 4)
    picture = Display(Grid((3, 4), affine)).take(image)[0]
    wanted = image if affine[0, 0] == 0 else image.T if affine[0, 0] < 0 else image.T[::-1, ::-1]
    np.testing.assert_array_equal(picture, wanted)


def test_one_plane_for_one_slice_whatever_its_axis() -> None:
    for shape, name in (((1, 5, 6), "sagittal"), ((5, 1, 6), "coronal"), ((5, 6, 1), "axial")):
        planes = Display(Grid(shape, np.eye(4))).planes((0, 0, 0))
        assert [plane.name for plane in planes] == [name]


def test_no_letters_where_nobody_knows_the_sides() -> None:
    planes = Display(Grid((4, 5, 6), AFFINES["permuted"]), oriented=False).planes((1, 2, 3))
    assert all(not plane.edges and not plane.ends for plane in planes)
    assert sorted(plane.name for plane in planes) == ["axis 1", "axis 2", "axis 3"]


def test_slices_go_through_what_matters() -> None:
    shape = (16, 16, 16)
    ring = np.zeros(shape)
    ring[2:9, 2:9, 5] = 1
    ring[3:8, 3:8, 5] = 0
    distance = np.zeros(shape)
    distance[4, 6, 8], distance[0, 0, 0], distance[5, 5, 5] = 2, 9, 5  # the rim and the dark don't count
    image = np.ones(shape)
    image[5, 5, 5] = 0
    voxel = choose_voxel(ring, distance, image)
    assert voxel[2] == 5 and ring[voxel[0]].any() and ring[:, voxel[1]].any()
    assert choose_voxel(None, distance, image) == (4, 6, 8)
    assert choose_voxel(np.zeros(shape), distance, image) == (4, 6, 8)
    assert choose_voxel(None, np.zeros(shape), image) == (8, 8, 8)
