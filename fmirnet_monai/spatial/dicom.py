"""Registrations in DICOM: what Spatial Registration and Deformable Spatial Registration objects say, to and from maps.

A Spatial Registration's matrix takes the moving images' space to the registered (fixed) one, against our direction
(PS3.3 C.20.2.1.1). A Deformable one takes the registered space to the moving images', as we do (C.20.3.1.1).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dicom_elements import check_elements
from .displacement import DisplacementField
from .files import from_lps, to_lps
from .geometry import flip, from_geometry, geometry
from .grid import Grid, transform
from .maps import Affine, Map, chain

SPATIAL, DEFORMABLE = "1.2.840.10008.5.1.4.1.1.66.1", "1.2.840.10008.5.1.4.1.1.66.3"
VECTOR = np.dtype("<f4")
LONGEST = 2**32 - 2  # bytes that one element holds
SINGULAR = 1e-9  # determinant of a matrix that can't be turned round
ALIKE = 1e-6  # of lengths and cosines in a matrix


def read_registration(path: str | Path) -> Map:
    """Read a Spatial Registration or a Deformable Spatial Registration object as a map from fixed to moving space.

    Raises:
        ValueError: when it is neither, or holds several registrations or none.
    """
    import pydicom

    check_elements(Path(path))
    dataset = pydicom.dcmread(path)
    kind = str(dataset.get("SOPClassUID", ""))
    if kind == SPATIAL:
        return _one([_matrices(item) for item in dataset.get("RegistrationSequence") or []])
    if kind == DEFORMABLE:
        big = dataset.original_encoding[1] is False
        return _one([_deformation(item, big) for item in dataset.get("DeformableRegistrationSequence") or []])
    raise ValueError(f"it is a DICOM object of class {kind or 'unknown'}, no (deformable) spatial registration")


def _one(found: list[Map]) -> Map:
    """The registration that moves something: a file also lists the fixed images, which stay where they are."""
    moving = [item for item in found if not (isinstance(item, Affine) and item.still)]
    if not found or len(moving) > 1:
        raise ValueError(f"it holds {len(moving)} registrations, of which one alone could be taken")
    return (moving or found)[0]


def _matrices(item: Any) -> Map:
    (registration,) = item.MatrixRegistrationSequence
    matrices = [_matrix(part) for part in registration.MatrixSequence]
    moving = [matrix for matrix in matrices if not np.array_equal(matrix, np.eye(4))]
    if len(moving) > 1:
        raise ValueError(f"one of its registrations is a product of {len(moving)} matrices; write it as one matrix")
    whole = moving[0] if moving else np.eye(4)
    if abs(np.linalg.det(whole)) < SINGULAR:
        raise ValueError(f"its matrix {whole.ravel().tolist()} has no inverse")
    return _affine(whole).inverse()


def _deformation(item: Any, big: bool) -> Map:
    pre, post = (
        _affine(
            _matrix(sequence[0]) if (sequence := item.get(f"{when}DeformationMatrixRegistrationSequence")) else None
        )
        for when in ("Pre", "Post")
    )
    grids = item.get("DeformableRegistrationGridSequence")
    if not grids:
        return chain((pre, post))
    field = _field(grids[0], big)
    if not pre.still:  # which is added to the offsets of a point, not to the place where these are looked up
        shift = [transform(pre.matrix, places := field.grid.points()) - places + field.world_vectors().reshape(-1, 3)]
        field = DisplacementField.from_world_vectors(shift[0].reshape(*field.grid.shape, 3), field.grid)
    return chain((field, post))


def _field(item: Any, big: bool) -> DisplacementField:
    size = [int(n) for n in item.GridDimensions]
    spacing, origin = _numbers(item, "GridResolution", 3), _numbers(item, "ImagePositionPatient", 3)
    axes = _numbers(item, "ImageOrientationPatient", 6).reshape(2, 3)
    stored = bytes(item.get("VectorGridData") or b"")
    needed = math.prod(size) * 3 * VECTOR.itemsize
    if len(size) != 3 or min(size) < 1 or len(stored) != needed or not (spacing > 0).all():
        raise ValueError(
            f"its grid of {size} vectors, {spacing.tolist()} mm apart, takes {needed} bytes, it has {len(stored)}"
        )
    grid = from_geometry(size, origin, spacing, np.stack([*axes, np.cross(*axes)], axis=1))
    geometry(grid)  # which refuses axes that are not at right angles
    vectors = np.frombuffer(stored, VECTOR.newbyteorder(">") if big else VECTOR)
    return from_lps(vectors.reshape(*size[::-1], 3), grid)


def _affine(lps: NDArray[np.float64] | None) -> Affine:
    turn = np.diag([-1.0, -1, 1, 1])
    return Affine.identity(3) if lps is None else Affine(turn @ lps @ turn)


def _matrix(item: Any) -> NDArray[np.float64]:
    matrix = _numbers(item, "FrameOfReferenceTransformationMatrix", 16).reshape(4, 4)
    if not np.array_equal(matrix[3], [0, 0, 0, 1]):
        raise ValueError(f"the last row of its matrix is {matrix[3].tolist()}, not 0, 0, 0, 1")
    return matrix


def _numbers(item: Any, name: str, count: int) -> NDArray[np.float64]:
    numbers = np.ravel(np.asarray(item.get(name), dtype=np.float64))
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"its {name} is {numbers[:count].tolist()}, expected {count} numbers")
    return numbers


def matrix_item(found: Affine, inverse: bool = False) -> Any:
    """An item that holds an affine map, or its inverse, in LPS, and of what kind it is."""
    from pydicom.dataset import Dataset

    item = Dataset()
    matrix = (found.inverse() if inverse else found).matrix
    item.FrameOfReferenceTransformationMatrixType = matrix_type(matrix)
    turn = np.diag([-1.0, -1, 1, 1])
    item.FrameOfReferenceTransformationMatrix = decimals((turn @ matrix @ turn).ravel())
    return item


def matrix_type(matrix: NDArray[np.float64]) -> str:
    """What DICOM calls a matrix ``(4, 4)``: RIGID, RIGID_SCALE (a rotation of scaled axes) or AFFINE (C.20.2.1.2)."""
    inner = matrix[:3, :3]
    lengths = np.linalg.norm(inner, axis=0)
    right = np.allclose(inner.T @ inner, np.diag(lengths**2), rtol=0, atol=ALIKE * float(lengths.max()) ** 2)
    if not right or np.linalg.det(inner) <= 0:
        return "AFFINE"
    return "RIGID" if np.allclose(lengths, 1, rtol=0, atol=ALIKE) else "RIGID_SCALE"


def grid_item(field: DisplacementField) -> Any:
    """An item that holds a field: vectors in mm, LPS, at the centres of a grid.

    Raises:
        ValueError: when one element can't hold them, or the third axis isn't the cross product of the others.
    """
    from pydicom.dataset import Dataset

    grid = field.grid
    needed = math.prod(grid.shape) * 3 * VECTOR.itemsize
    if needed > LONGEST:
        raise ValueError(f"a field of {grid.shape} takes {needed} bytes, more than DICOM has room for; write nifti.")
    item = Dataset()
    item.update(place(grid))
    item.GridDimensions = list(grid.shape)
    item.GridResolution = [float(n) for n in grid.spacing]
    item.VectorGridData = to_lps(field).astype(VECTOR, copy=False).tobytes()
    return item


def place(grid: Grid, index: int = 0) -> Any:
    """An item that says where a slice of a grid, along its last axis, lies and how it is turned.

    Raises:
        ValueError: when the third axis isn't the cross product of the others, as DICOM has it.
    """
    from pydicom.dataset import Dataset

    direction = geometry(grid)[2]
    if grid.dims != 3 or np.linalg.det(direction) < 0:
        raise ValueError("DICOM has grids of three axes, the third the cross product of the others.")
    item = Dataset()
    item.ImagePositionPatient = decimals(flip(3) @ grid.to_world(np.array([0.0, 0.0, index])))
    item.ImageOrientationPatient = decimals(direction[:, :2].T.ravel())
    return item


def decimals(numbers: Any) -> list[str]:
    """Numbers as DICOM's decimal strings, as exact as their 16 characters allow."""
    from pydicom.valuerep import format_number_as_ds

    return [format_number_as_ds(float(n) + 0.0) for n in np.ravel(numbers)]
