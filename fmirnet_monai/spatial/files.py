"""Displacement fields in image files: an image of vectors in mm, LPS axes, on the fixed image's grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from fmirnet_monai.formats import NIFTI, WRITTEN_VOLUMES, known_suffix, suffix_of
from fmirnet_monai.utils import reading, replacing

from .displacement import DisplacementField
from .geometry import flip, geometry, grid_of_itk, nifti, read_nifti, set_geometry
from .grid import Grid
from .headers import itk_header

RAS_VECTORS = 1006  # NIfTI's code of displacement vectors, which are RAS; those of others are LPS, as in ITK
VECTORS = (0, RAS_VECTORS, 1007)
TURNED = b"axes 1,2,0"  # see _turned


def to_lps(field: DisplacementField) -> NDArray[np.float32]:
    """Vectors in mm along LPS axes as ITK stores them, ``(*grid.shape[::-1], D)``."""
    dims = field.dims
    stored = np.empty((*field.grid.shape[::-1], dims), dtype=np.float32)  # filled in place
    vectors = np.moveaxis(stored, range(dims), range(dims - 1, -1, -1))
    for slab in field.grid.slabs():
        vectors[slab] = field.world_vectors(slab) @ flip(dims)
    return stored


def from_lps(stored: NDArray, grid: Grid) -> DisplacementField:
    """The field whose vectors :py:func:`to_lps` gives."""
    return _from_lps_vectors(np.moveaxis(stored, range(grid.dims), range(grid.dims - 1, -1, -1)), grid)


def _from_lps_vectors(vectors: NDArray, grid: Grid) -> DisplacementField:
    """From displacement in mm along LPS axes, ``(*grid.shape, D)``; the same in voxels as on the grid in LPS."""
    lps = grid.affine.copy()
    lps[:-1] = flip(grid.dims) @ lps[:-1]
    return DisplacementField(DisplacementField.from_world_vectors(vectors, Grid(grid.shape, lps)).ddf, grid)


def to_itk(field: DisplacementField) -> Any:
    """The field as an ITK image of float vectors.

    Raises:
        ValueError: when the grid's axes are not at right angles, which an ITK image can't express.
    """
    import itk

    image = itk.image_view_from_array(to_lps(field), is_vector=True)
    set_geometry(image, field.grid)
    return image


def from_itk(image: Any) -> DisplacementField:
    """A field from an ITK image of vectors in mm."""
    import itk

    dims, stored = image.GetImageDimension(), itk.array_view_from_image(image)
    if stored.shape[-1] != dims or stored.ndim != dims + 1:
        raise ValueError(f"it is no image of {dims}-vectors, its shape is {stored.shape}")
    return from_lps(stored, grid_of_itk(image))


def write_displacement(field: DisplacementField, path: str | Path) -> Path:
    """Write a field as ITK displacement file, whole or not at all.

    Args:
        field: to write.
        path: ``.nii.gz``, ``.nii``, ``.mha`` or ``.nrrd``.

    Raises:
        ValueError: for another suffix.
        OSError: when it can't be written.
    """
    write = _write_nifti if known_suffix(path, WRITTEN_VOLUMES) in NIFTI else _write_itk
    geometry(field.grid)  # which refuses what ITK can't express
    with replacing(path) as partial:
        try:
            write(field, partial)
        except (RuntimeError, ValueError, EOFError) as error:
            raise OSError(f"{path}: can't be written; check the folder's rights and space.") from error
    return Path(path)


def _write_itk(field: DisplacementField, path: Path) -> None:
    import itk

    itk.imwrite(to_itk(field), str(path), compression=True)
    itk.imread(str(path))  # it leaves half a file on a full disk without a word


def _write_nifti(field: DisplacementField, path: Path) -> None:
    turned = field.grid.dims == 3 and field.grid.shape[2] == 1
    grid = (field := _turned(field, (2, 0, 1)) if turned else field).grid
    vectors = np.moveaxis(to_lps(field), range(grid.dims), range(grid.dims - 1, -1, -1))
    image = nifti(vectors.reshape(*grid.shape, *[1] * (4 - grid.dims), grid.dims), grid)
    image.header.set_intent("vector", name=TURNED.decode() if turned else "")
    nib.save(image, path)


def _turned(field: DisplacementField, order: tuple[int, int, int]) -> DisplacementField:
    """The same map with its array axes in another order.

    ITK takes a NIfTI of vectors whose last axis has one voxel for 2-D, and then it is no map of a volume. So its one
    slice is written along the first axis: every tool finds the same vectors in the same place. A note in the header
    tells this package to turn the axes back.
    """
    affine = field.grid.affine[:, [*order, 3]]
    shape = tuple(field.grid.shape[axis] for axis in order)
    return DisplacementField(field.ddf[list(order)].permute(0, *[axis + 1 for axis in order]), Grid(shape, affine))


def read_displacement(path: str | Path) -> DisplacementField:
    """Read a displacement field of ITK, SimpleITK, ANTs, 3D Slicer or nibabel, in single or double precision.

    Args:
        path: ``.nii.gz``, ``.nii``, ``.mha``, ``.mhd``, ``.nrrd``, or another image of vectors that ITK reads. In NIfTI
            it is ``(X, Y, Z, 1, D)``; vectors are LPS, as in ITK, unless the header calls them displacements (intent
            1006), which the standard has in RAS.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it does not hold a displacement field, ends early, or is not finite.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such displacement field: {path}; check the path.")
    with reading(path, "not a displacement field, or damaged: {}; get it again, or write it by ITK or ANTs."):
        field = _read(Path(path))
    if bad := int((~field.ddf.isfinite()).any(0).sum()):
        raise ValueError(
            f"{path}: {bad} of {field.ddf[0].numel()} vectors are NaN or infinite; replace them (by 0 where nothing is "
            "known), or run the tool that wrote it again without a mask."
        )
    return field


def _read(path: Path) -> DisplacementField:
    if suffix_of(path, NIFTI):
        return _read_nifti(path)
    import itk

    header = itk_header(path)
    dims, components = header.GetNumberOfDimensions(), header.GetNumberOfComponents()
    if dims != components or dims not in (2, 3):
        raise ValueError(f"it has {dims} axes and {components} values per voxel, a field as many values as axes")
    reader = itk.ImageFileReader[itk.Image[itk.Vector[itk.F, dims], dims]].New(FileName=str(path), ImageIO=header)
    reader.Update()
    return from_itk(reader.GetOutput())


def _read_nifti(path: Path) -> DisplacementField:
    image, place = read_nifti(path)
    header: Any = image.header
    intent = int(header["intent_code"])
    if intent not in VECTORS or len(image.shape) != 5 or image.shape[3] != 1 or image.shape[4] not in (2, 3):
        raise ValueError(
            f"a field is (X, Y, Z, 1, 3) vectors (intent 1007), this has shape {image.shape} and intent {intent}"
            + ("; it is one of FSL, whose vectors mean something else" if 2006 <= intent <= 2016 else "")
        )
    vectors = np.asanyarray(image.dataobj)[:, :, :, 0, :]
    grid = Grid(image.shape[:3], place)
    if vectors.shape[-1] == 2:
        if vectors.shape[2] != 1:
            raise ValueError(f"it has 2-vectors in a volume of shape {image.shape[:3]}")
        keep = [0, 1, 3]
        vectors, grid = vectors[:, :, 0], Grid(image.shape[:2], grid.affine[np.ix_(keep, keep)])
    read = DisplacementField.from_world_vectors if intent == RAS_VECTORS else _from_lps_vectors
    field = read(vectors, grid)
    return _turned(field, (1, 2, 0)) if bytes(header["intent_name"].item()) == TURNED else field
