"""To and from ITK's form of a displacement field: an image of vectors in mm, LPS axes, on the fixed image's grid.

ITK, SimpleITK, ANTs and 3D Slicer read and write this form (``.nii.gz``, ``.mha``, ``.nrrd``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import itk
import numpy as np

from .displacement import DisplacementField
from .grid import Grid


def _flip(dims: int) -> np.ndarray:
    """RAS+ to LPS, which is its own inverse: the signs of the first two axes."""
    return np.diag([-1.0, -1.0, 1.0][:dims])


def to_itk(field: DisplacementField) -> Any:
    """The field as an ITK image of float vectors, ready for ``itk.DisplacementFieldTransform`` or a file.

    Raises:
        ValueError: when the grid's axes are not at right angles, which an ITK image can't express.
    """
    dims = field.grid.dims
    vectors = field.world_vectors() @ _flip(dims)
    image = itk.image_from_array(
        np.ascontiguousarray(np.moveaxis(vectors, range(dims), range(dims - 1, -1, -1)), dtype=np.float32),
        is_vector=True,
    )
    lps = _flip(dims) @ field.grid.affine[:-1]
    direction = lps[:, :-1] / field.grid.spacing
    if not np.allclose(direction.T @ direction, np.eye(dims), atol=1e-4):
        raise ValueError(f"the grid's axes are not at right angles, ITK can't express its affine:\n{field.grid.affine}")
    image.SetSpacing([float(s) for s in field.grid.spacing])
    image.SetOrigin([float(v) for v in lps[:, -1]])
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(direction)))
    return image


def from_itk(image: Any) -> DisplacementField:
    """A field from an ITK image of vectors in mm."""
    dims = image.GetImageDimension()
    vectors = np.moveaxis(itk.array_from_image(image).astype(np.float64), range(dims), range(dims - 1, -1, -1))
    if vectors.shape[-1] != dims or vectors.ndim != dims + 1:
        raise ValueError(f"expected an image of {dims}-vectors, got shape {vectors.shape}.")
    affine = np.eye(dims + 1)
    affine[:-1, :-1] = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    affine[:-1, -1] = np.array(image.GetOrigin())
    affine[:-1] = _flip(dims) @ affine[:-1]
    return DisplacementField.from_world_vectors(vectors @ _flip(dims), Grid(vectors.shape[:-1], affine))


def write_displacement(field: DisplacementField, path: str | Path) -> Path:
    """Write a field as ITK displacement file, whole or not at all; the suffix chooses the format."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"partial_{target.name}")
    itk.imwrite(to_itk(field), str(partial))
    partial.replace(target)
    return target


def read_displacement(path: str | Path) -> DisplacementField:
    """Read an ITK displacement file.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it does not hold a displacement field.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such displacement field: {path}")
    try:
        return from_itk(itk.imread(str(path)))
    except (RuntimeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not a displacement field: {str(error).strip().splitlines()[-1]}") from error
