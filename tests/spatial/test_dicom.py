"""Registrations in DICOM, against the equations of the standard (PS3.3 C.20.2.1.1 and C.20.3.1.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian
from scipy.spatial.transform import Rotation

from fmirnet_monai.spatial import Affine, DisplacementField
from fmirnet_monai.spatial.dicom import DEFORMABLE, SPATIAL, grid_item, matrix_item, matrix_type
from fmirnet_monai.spatial.itk import flip_lps, read_transform

from .conftest import random_field, random_grid

RNG = np.random.default_rng(3)
TURN = Rotation.from_euler("xyz", [0.1, -0.2, 0.3]).as_matrix()


def matrix(inner: np.ndarray = TURN, shift: tuple[float, ...] = (4.0, -3.0, 2.0)) -> np.ndarray:
    whole = np.eye(4)
    whole[:3, :3], whole[:3, 3] = inner, shift
    return whole


def stated(lps: np.ndarray) -> Dataset:
    item = Dataset()
    item.FrameOfReferenceTransformationMatrixType = "AFFINE"
    item.FrameOfReferenceTransformationMatrix = [f"{v:.10g}" for v in lps.ravel()]
    return item


def spatial(*products: list[np.ndarray]) -> Dataset:
    """A Spatial Registration, an item for each product of matrices."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.RegistrationSequence = SPATIAL, []
    for matrices in products:
        registration, item = Dataset(), Dataset()
        registration.MatrixSequence = [stated(part) for part in matrices]
        item.MatrixRegistrationSequence = [registration]
        dataset.RegistrationSequence.append(item)
    return dataset


def deformable(pre: np.ndarray | None = None, post: np.ndarray | None = None, **changes: Any) -> Dataset:
    """A Deformable one of a turned grid of 5 x 4 x 3 vectors."""
    vectors = np.random.default_rng(1).uniform(-3, 3, (3, 4, 5, 3)).astype("<f4")
    grid = Dataset()
    grid.ImagePositionPatient = [10.5, -20.25, 30]
    grid.ImageOrientationPatient = [f"{v:.12g}" for v in TURN[:, :2].T.ravel()]
    grid.GridDimensions, grid.GridResolution, grid.VectorGridData = [5, 4, 3], [2.0, 3.0, 4.5], vectors.tobytes()
    for name, value in changes.items():
        setattr(grid, name, value)
    item, still, dataset = Dataset(), Dataset(), Dataset()
    if pre is not None:
        item.PreDeformationMatrixRegistrationSequence = [stated(pre)]
    if post is not None:
        item.PostDeformationMatrixRegistrationSequence = [stated(post)]
    item.DeformableRegistrationGridSequence = [grid]
    dataset.SOPClassUID, dataset.DeformableRegistrationSequence = DEFORMABLE, [still, item]
    return dataset


def saved(dataset: Dataset, path: Path, syntax: UID = ExplicitVRLittleEndian) -> Path:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("name", ["a.dcm", "A.DCM", "IM0001"])
def test_a_matrix_takes_the_moving_space_to_the_fixed_one(tmp_path: Path, name: str) -> None:
    given = matrix(TURN @ np.diag([1.1, 0.9, 1.2]))
    found = read_transform(saved(spatial([np.eye(4)], [given]), tmp_path / name))
    assert isinstance(found, Affine)
    source = RNG.uniform(-50, 50, (20, 3))
    registered = source @ given[:3, :3].T + given[:3, 3]
    moved, _ = found(torch.from_numpy(flip_lps(registered)))
    np.testing.assert_allclose(flip_lps(moved), source, atol=1e-6)


@pytest.mark.parametrize("pre", [None, matrix(TURN.T, (1.0, 2.0, -5.0))], ids=["no pre", "pre"])
@pytest.mark.parametrize("post", [None, matrix(np.diag([1.1, 0.9, 1.0]))], ids=["no post", "post"])
def test_a_grid_is_applied_as_the_standard_says(
    tmp_path: Path, pre: np.ndarray | None, post: np.ndarray | None
) -> None:
    dataset = deformable(pre, post)
    found = read_transform(saved(dataset, tmp_path / "a.dcm"))
    grid = dataset.DeformableRegistrationSequence[1].DeformableRegistrationGridSequence[0]
    offsets = np.frombuffer(grid.VectorGridData, "<f4").reshape(3, 4, 5, 3)
    row, column = np.reshape(np.asarray(grid.ImageOrientationPatient, float), (2, 3))
    first, last = (np.eye(4) if m is None else m for m in (pre, post))
    for k, j, i in np.ndindex(3, 4, 5):
        start = np.asarray(grid.ImagePositionPatient, float)
        start = start + 2.0 * i * row + 3.0 * j * column + 4.5 * k * np.cross(row, column)
        source = last @ (first @ [*start, 1] + [*offsets[k, j, i], 0])
        moved, inside = found(torch.from_numpy(flip_lps(start)))
        assert inside
        np.testing.assert_allclose(flip_lps(moved), source[:3], atol=2e-5)


def test_the_bytes_of_a_file_may_lie_the_other_way_round(tmp_path: Path) -> None:
    grid = deformable().DeformableRegistrationSequence[1].DeformableRegistrationGridSequence[0]
    turned = np.frombuffer(grid.VectorGridData, "<f4").astype(">f4").tobytes()
    other = read_transform(saved(deformable(VectorGridData=turned), tmp_path / "b.dcm", ExplicitVRBigEndian))
    one = read_transform(saved(deformable(), tmp_path / "a.dcm"))
    assert isinstance(one, DisplacementField) and isinstance(other, DisplacementField)
    assert torch.equal(one.ddf, other.ddf)


def test_what_is_written_is_read_again() -> None:
    grid = random_grid(np.random.default_rng(4), 3)
    if np.linalg.det(grid.affine[:3, :3]) < 0:
        grid.affine[:3, 2] *= -1
    field = random_field(RNG, grid)
    item = grid_item(field)
    assert len(item.VectorGridData) == 12 * np.prod(grid.shape) and item.GridDimensions == [*grid.shape]
    affine = Affine(matrix())
    there, back = (
        np.reshape(matrix_item(affine, inverse).FrameOfReferenceTransformationMatrix, (4, 4)).astype(float)
        for inverse in (False, True)
    )
    np.testing.assert_allclose(there @ back, np.eye(4), atol=1e-12)
    point = RNG.uniform(-9, 9, 3)
    moved, _ = affine(torch.from_numpy(point))
    np.testing.assert_allclose(there[:3, :3] @ flip_lps(point) + there[:3, 3], flip_lps(moved), atol=1e-9)


def test_a_grid_that_is_no_screw_of_right_hand_is_refused() -> None:
    grid = random_grid(np.random.default_rng(4), 3)
    if np.linalg.det(grid.affine[:3, :3]) > 0:
        grid.affine[:3, 2] *= -1
    with pytest.raises(ValueError, match="the third the cross product of the others"):
        grid_item(random_field(RNG, grid))


@pytest.mark.parametrize(
    ("inner", "kind"),
    [
        (np.eye(3), "RIGID"),
        (TURN, "RIGID"),
        (TURN @ np.diag([1.1, 0.8, 1.0]), "RIGID_SCALE"),
        (np.diag([1.1, 0.8, 1.0]) @ TURN, "AFFINE"),
        (TURN @ [[1, 0.05, 0], [0, 1, 0], [0, 0, 1]], "AFFINE"),
        (TURN @ np.diag([-1, 1, 1]), "AFFINE"),
    ],
)
def test_what_a_matrix_is_called(inner: np.ndarray, kind: str) -> None:
    assert matrix_type(matrix(inner)) == kind


SKEW = [1, 0, 0, 0.6, 0.8, 0]
NAN = np.full((3, 4, 5, 3), np.nan, "<f4").tobytes()


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (deformable(GridDimensions=[5, 4, 4]), r"\[5, 4, 4\] vectors, .* takes 960 bytes, it has 720"),
        (deformable(GridDimensions=[2**32 - 1] * 3), r"4294967295\] vectors, .*, it has 720"),
        (deformable(GridDimensions=[0, 4, 3], VectorGridData=b""), r"its grid of \[0, 4, 3\] vectors"),
        (deformable(GridResolution=[1.0, -1.0, 1.0]), r"\[1\.0, -1\.0, 1\.0\] mm apart"),
        (deformable(ImageOrientationPatient=SKEW), "axes are not at right angles"),
        (deformable(ImagePositionPatient=[1, 2]), r"its ImagePositionPatient is \[1\.0, 2\.0\], expected 3 numbers"),
        (deformable(VectorGridData=NAN), r"60 of its vectors are NaN or infinite"),
        (deformable(np.diag([1.0, 1, 1, 2])), "the last row of its matrix is"),
        (spatial([matrix()], [matrix(shift=(0, 0, 1))]), "it holds 2 registrations"),
        (spatial(), "it holds 0 registrations"),
        (spatial([matrix(), matrix()]), "product of 2 matrices"),
        (spatial([matrix(np.zeros((3, 3)))]), r"its matrix \[.*\] has no inverse"),
    ],
)
def test_a_registration_that_can_t_be_taken(tmp_path: Path, dataset: Dataset, message: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.dcm: .*{message}|a\.dcm: {message}"):
        read_transform(saved(dataset, tmp_path / "a.dcm"))


def test_a_file_that_is_no_registration(tmp_path: Path) -> None:
    image = spatial()
    image.SOPClassUID = pydicom.uid.CTImageStorage
    with pytest.raises(ValueError, match=r"a\.dcm: .* class 1\.2\.840\.10008\.5\.1\.4\.1\.1\.2, no \(deformable\)"):
        read_transform(saved(image, tmp_path / "a.dcm"))
    (tmp_path / "b.dcm").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"b\.dcm: not a transform, or damaged"):
        read_transform(tmp_path / "b.dcm")
    with pytest.raises(FileNotFoundError, match=r"no such transform: .*c\.dcm"):
        read_transform(tmp_path / "c.dcm")
