"""Planes: right way up, through what matters, with what lies on them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fmirnet_monai.report.planes import choose_planes, choose_voxel, obliqueness
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
    # the voxel farthest towards the patient's right, front and head
    world = grid.points() - grid.points().mean(0)
    corner = np.unravel_index((world / np.ptp(world, axis=0) @ [1, 1, 1]).argmax(), grid.shape)
    volume = np.zeros(grid.shape)
    volume[corner] = 1
    planes = choose_planes(grid, corner)
    assert [plane.name for plane in planes] == ["axial", "coronal", "sagittal"]
    assert [plane.edges for plane in planes] == ["RLAP", "RLSI", "APSI"]
    for plane in planes:
        picture = plane.take(volume)
        assert picture[0, 0] == 1 and picture.sum() == 1
        step = [length / n for length, n in zip(plane.extent, picture.shape[::-1], strict=True)]
        np.testing.assert_allclose(plane.place(np.array(corner)), [step[0] / 2, step[1] / 2])
        np.testing.assert_allclose(plane.near(grid.to_world(np.array([corner]))), [[step[0] / 2, step[1] / 2]])
    assert obliqueness(grid) == pytest.approx(20 if kind == "oblique" else 0, abs=1e-4)


@pytest.mark.parametrize(
    "affine", [np.diag([-1.0, -1, 1]), np.diag([1.0, 1, 1]), np.array([[0, -2.0, 0], [-1, 0, 0], [0, 0, 1]])]
)
def test_2d_images_lie_as_viewers_show_them(affine: NDArray) -> None:
    image = np.arange(12.0).reshape(3, 4)
    picture = choose_planes(Grid((3, 4), affine), (0, 0))[0].take(image)
    wanted = image if affine[0, 0] == 0 else image.T if affine[0, 0] < 0 else image.T[::-1, ::-1]
    np.testing.assert_array_equal(picture, wanted)


def test_slice_grid_is_the_slice() -> None:
    grid = Grid((4, 5, 6), AFFINES["oblique"])
    for plane in choose_planes(grid, (1, 2, 3)):
        points = grid.points().reshape(4, 5, 6, 3)
        wanted = points.take([plane.index], axis=plane.axis).reshape(-1, 3)
        np.testing.assert_allclose(plane.slice_grid().points(), wanted)


def test_one_plane_for_one_slice_whatever_its_axis() -> None:
    for shape, name in (((1, 5, 6), "sagittal"), ((5, 1, 6), "coronal"), ((5, 6, 1), "axial")):
        planes = choose_planes(Grid(shape, np.eye(4)), (0, 0, 0))
        assert [plane.name for plane in planes] == [name]


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


def test_landmarks_far_from_the_slice_are_left_out() -> None:
    plane = choose_planes(Grid((10, 10, 20), np.eye(4)), (5, 5, 10))[0]
    assert len(plane.near([[5, 5, 12.5], [5, 5, 13.5], [5, 5, 7.5]])) == 2


def test_outlines_run_round_the_label() -> None:
    plane = choose_planes(Grid((10, 8), np.diag([-2.0, -1, 1])), (0, 0))[0]
    label = np.zeros((8, 10), dtype=int)
    label[2:5, 0:4] = 1  # at the left edge, still closed
    label[2:5, 4:6] = 2
    first, second = plane.outlines(label)
    np.testing.assert_allclose([first.min(0), first.max(0)], [[0, 2], [8, 5]])
    np.testing.assert_allclose([second.min(0), second.max(0)], [[8, 2], [12, 5]])
