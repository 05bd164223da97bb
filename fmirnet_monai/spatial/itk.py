"""To and from ITK's form of a displacement field: an image of vectors in mm, LPS axes, on the fixed image's grid.

ITK, SimpleITK, ANTs and 3D Slicer read and write this form (``.nii.gz``, ``.mha``, ``.nrrd``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import itk
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fmirnet_monai.utils import known_suffix, reason, replacing

from .displacement import DisplacementField
from .grid import Grid

WRITTEN_FIELDS = (".nii.gz", ".nii", ".mha", ".nrrd")
TRANSFORMS = (".h5", ".hdf5", ".tfm", ".txt", ".mat", ".xfm")


def _flip(dims: int) -> np.ndarray:
    """RAS+ to LPS, which is its own inverse: the signs of the first two axes."""
    return np.diag([-1.0, -1.0, 1.0][:dims])


def flip_lps(points: ArrayLike) -> NDArray[np.float64]:
    """Positions ``(N, D)`` in mm from RAS+ to LPS or back."""
    return np.asarray(points, dtype=np.float64) @ _flip(np.shape(points)[1])


def set_geometry(image: Any, grid: Grid) -> None:
    """Give an ITK image the spacing, origin and direction of ``grid``.

    Raises:
        ValueError: when the grid's axes are not at right angles, which an ITK image can't express.
    """
    lps = _flip(grid.dims) @ grid.affine[:-1]
    direction = lps[:, :-1] / grid.spacing
    if not np.allclose(direction.T @ direction, np.eye(grid.dims), atol=1e-4):
        raise ValueError(f"the grid's axes are not at right angles, ITK can't express its affine:\n{grid.affine}")
    image.SetSpacing([float(s) for s in grid.spacing])
    image.SetOrigin([float(v) for v in lps[:, -1]])
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(direction)))


def grid_of_itk(image: Any) -> Grid:
    """Grid of an ITK image."""
    dims = image.GetImageDimension()
    affine = np.eye(dims + 1)
    affine[:-1, :-1] = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    affine[:-1, -1] = np.array(image.GetOrigin())
    affine[:-1] = _flip(dims) @ affine[:-1]
    return Grid(tuple(itk.size(image)), affine)


def to_itk(field: DisplacementField, dtype: DTypeLike = np.float32) -> Any:
    """The field as an ITK image of float vectors, ready for ``itk.DisplacementFieldTransform`` or a file.

    Raises:
        ValueError: when the grid's axes are not at right angles, which an ITK image can't express.
    """
    dims = field.grid.dims
    vectors = field.world_vectors() @ _flip(dims)
    image = itk.image_from_array(
        np.ascontiguousarray(np.moveaxis(vectors, range(dims), range(dims - 1, -1, -1)), dtype=dtype),
        is_vector=True,
    )
    set_geometry(image, field.grid)
    return image


def from_itk(image: Any) -> DisplacementField:
    """A field from an ITK image of vectors in mm."""
    dims = image.GetImageDimension()
    vectors = np.moveaxis(itk.array_from_image(image).astype(np.float64), range(dims), range(dims - 1, -1, -1))
    if vectors.shape[-1] != dims or vectors.ndim != dims + 1:
        raise ValueError(f"expected an image of {dims}-vectors, got shape {vectors.shape}.")
    return DisplacementField.from_world_vectors(vectors @ _flip(dims), grid_of_itk(image))


def write_displacement(field: DisplacementField, path: str | Path) -> Path:
    """Write a field as ITK displacement file, whole or not at all.

    Args:
        field: to write.
        path: ``.nii.gz``, ``.nii``, ``.mha`` or ``.nrrd``.

    Raises:
        ValueError: for another suffix.
        OSError: when it can't be written.
    """
    known_suffix(path, WRITTEN_FIELDS)
    with replacing(path) as partial:
        try:
            itk.imwrite(to_itk(field), str(partial), compression=True)
            itk.imread(str(partial))  # ITK leaves half a file on a full disk without a word
        except RuntimeError as error:
            raise OSError(f"{path}: can't be written; check the folder's rights and space.") from error
    return Path(path)


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
        raise ValueError(f"{path}: not a displacement field: {reason(error)}") from error


def write_composite(affine: ArrayLike, deformable: DisplacementField, path: str | Path) -> Path:
    """Write an affine map after a field as one ITK composite transform (``.h5``), whole or not at all.

    ITK, SimpleITK, ANTs and 3D Slicer apply it as one transform: a fixed point goes through the field first.

    Args:
        affine: ``(D + 1, D + 1)`` in RAS+ mm, fixed to moving space.
        deformable: the field that comes before it.
        path: file that ends in ``.h5``.
    """
    dims = deformable.grid.dims
    flip = _flip(dims)
    matrix = np.asarray(affine, dtype=np.float64)
    first = itk.AffineTransform[itk.D, dims].New()
    first.SetMatrix(itk.matrix_from_array(np.ascontiguousarray(flip @ matrix[:-1, :-1] @ flip)))
    first.SetOffset([float(v) for v in flip @ matrix[:-1, -1]])
    second = itk.DisplacementFieldTransform[itk.D, dims].New()
    second.SetDisplacementField(to_itk(deformable, np.float64))
    composite = itk.CompositeTransform[itk.D, dims].New()
    composite.AddTransform(first)
    composite.AddTransform(second)  # the last one added is the first one applied
    with replacing(path) as partial:
        itk.transformwrite([composite], str(partial))
    return Path(path)


def read_transform(path: str | Path, grid: Grid | None = None) -> DisplacementField:
    """Read any transform of ITK as a field: a displacement file, or ``.h5``, ``.tfm``, ``.txt``, ``.mat``.

    Args:
        path: file to read.
        grid: grid of the result; a displacement file needs none and then keeps its own.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it can't be read, has another number of axes than ``grid``, or needs a grid.
    """
    if Path(path).suffix.lower() not in TRANSFORMS:
        field = read_displacement(path)
        if grid is not None and grid.dims != field.grid.dims:
            raise ValueError(f"{path}: is a {field.grid.dims}-D transform, the image has {grid.dims} axes.")
        return field if grid is None or grid.matches(field.grid) else field.resample(grid)
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such transform: {path}")
    if grid is None:
        raise ValueError(f"{path}: has no grid of its own; name a reference image.")
    try:
        transforms = itk.transformread(str(path))
    except RuntimeError as error:
        raise ValueError(f"{path}: not a transform: {reason(error)}") from error
    dims = transforms[0].GetInputSpaceDimension()
    if dims != grid.dims:
        raise ValueError(f"{path}: is a {dims}-D transform, the image has {grid.dims} axes.")
    whole = itk.CompositeTransform[itk.D, dims].New()
    for transform in transforms:
        whole.AddTransform(transform)
    sampler = itk.TransformToDisplacementFieldFilter[itk.Image[itk.Vector[itk.F, dims], dims], itk.D].New()
    sampler.SetTransform(whole)
    sampler.UseReferenceImageOn()
    sampler.SetReferenceImage(to_itk(DisplacementField.identity(grid)))
    sampler.Update()
    return from_itk(sampler.GetOutput())
