"""Images and labels as a user hands them over, placed in space as ITK, ANTs and 3D Slicer place them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmirnet_monai.formats import FREESURFER, NIFTI, WRITTEN_IMAGES, known_suffix, suffix_of
from fmirnet_monai.spatial import Grid
from fmirnet_monai.spatial.dicom_elements import check_elements, is_dicom
from fmirnet_monai.spatial.geometry import geometry, grid_of_itk, nifti, nifti_place, read_nifti, set_geometry
from fmirnet_monai.spatial.headers import DEFLATED, SMALL, check_nibabel, check_room, itk_header
from fmirnet_monai.spatial.image import Image
from fmirnet_monai.utils import reading, reason, replacing

from .dicom import series_files, slices_of, stacked
from .stored import ALIGNED, Stored
from .volume import NoStructure, check_finite

DAMAGED = (
    "it is damaged, incomplete (an .mhd needs its data file beside it) or of another format: get it again, or convert "
    "it to .nii.gz"
)
OF_ITK = [np.dtype(kind) for kind in ("u1", "u2", "i2", "u4", "i4", "f4", "f8")]  # that its Python takes
LOCK = threading.RLock()  # of the process's stderr


def read_image(path: str | Path, track_meta: bool = True) -> Any:
    """Read a 2-D or 3-D image through ITK; a volume of one slice stays 3-D.

    Of a NIfTI whose qform and sform differ ITK's choice holds, with a warning; see
    :py:func:`fmirnet_monai.spatial.geometry.nifti_place`.

    Args:
        path: NIfTI, MHA or MHD, NRRD, a folder with one DICOM series, a DICOM file, grey PNG or JPEG.
        track_meta: give MONAI's MetaTensor; otherwise an :py:class:`fmirnet_monai.spatial.image.Image`, for which
            MONAI isn't loaded.

    Returns:
        ``(1, *spatial)`` in float32, intensities rescaled as the file says (Hounsfield units for CT), with a
        ``(D + 1, D + 1)`` affine from voxel to RAS+ mm.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it can't be read whole, is no grey image of 2 or 3 axes, holds NaN or infinity, or one value.
    """
    values, grid = _read(Path(path), np.float32)
    values = np.ascontiguousarray(values)
    check_finite(values, path)
    if values.min() == values.max():
        raise ValueError(f"{path}: all its intensities are {values.flat[0]:g}; give another image.")
    return _tensor(values, grid, path, track_meta)


def read_label(path: str | Path, track_meta: bool = True, empty: bool = False) -> Any:
    """Read a label map from any format of :py:func:`read_image`; of a PNG with a palette, its indices.

    Args:
        path: as there.
        track_meta: as there.
        empty: whether it may be all background, as what a method found may be.

    Returns:
        ``(1, *spatial)`` in int32, 0 the background, with a ``(D + 1, D + 1)`` affine from voxel to RAS+ mm.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it can't be read, or its values are not whole or negative; NoStructure when they are all
            background.
    """
    values, grid = _read(Path(path), np.float64, indices=True)  # which holds labels of 32 bits
    check_finite(values, path, label=True)
    low, high = values.min(), values.max()
    if low < -0.5 or high >= 2**31 - 0.5:
        raise ValueError(f"{path}: labels must lie in 0..2147483647, found {low:.0f} to {high:.0f}; renumber them.")
    whole = np.empty(values.shape, dtype=np.int32)
    for stored, result in zip(values, whole, strict=True):
        np.rint(stored, out=result, casting="unsafe")
        if (apart := np.abs(result - stored) > 1e-3).any():
            raise ValueError(
                f"{path}: holds values such as {stored[apart][0]:g}, labels must be whole numbers; give the label map, "
                "not an image or a probability, resampled by nearest neighbour."
            )
    if not empty and not whole.any():
        raise NoStructure(f"{path}: all of it is background (0); give a label map with at least one labelled voxel.")
    return _tensor(whole, grid, path, track_meta)


def write_image(
    image: Tensor, path: str | Path, grid: Grid | None = None, stored: Stored | None = None, code: int = ALIGNED
) -> Path:
    """Write an image or a label map, whole or not at all; the suffix chooses the format.

    Floats are stored as float32, whole numbers as the smallest of uint8, int16 and int32 that holds them.

    Args:
        image: ``(1, *spatial)``.
        path: ``.nii.gz``, ``.nii``, ``.mha``, ``.nrrd``, or ``.png`` for a 2-D picture, which keeps no geometry.
        grid: where it lies; by default read from the image.
        stored: how to store it, rounded and clipped, see :py:func:`fmirnet_monai.data.stored_as`.
        code: of the space that it lies in, for NIfTI, see :py:func:`fmirnet_monai.data.nifti_code`.

    Returns:
        ``path``.

    Raises:
        ValueError: for another suffix, an image that the format can't hold, or one that does not fit its grid.
        OSError: when it can't be written.
    """
    target = Path(path)
    if target.name.lower().endswith(".mhd"):
        raise ValueError(f"{path}: an .mhd image is two files, which can't be written whole or not at all; write .mha.")
    suffix = known_suffix(target, WRITTEN_IMAGES)
    place = grid or Grid.of(image)
    if tuple(image.shape) != (1, *place.shape):
        raise ValueError(f"{path}: an image on this grid has shape {(1, *place.shape)}, got {tuple(image.shape)}.")
    values = _storable(image.detach().cpu()[0], path) if stored is None else _packed(image, stored, suffix, path)
    if suffix == ".png" and (place.dims != 2 or not np.array_equal(values, np.clip(np.rint(values), 0, 255))):
        raise ValueError(f"{path}: PNG holds 2-D images of whole numbers in 0..255 only; write .nii.gz.")
    geometry(place)  # which refuses what ITK can't express
    with replacing(target) as partial:
        try:
            if suffix in NIFTI:
                scale = (stored.slope, stored.inter) if stored and stored.scaled else None
                nib.save(nifti(values, place, code, scale), partial)
            else:
                _write_by_itk(values.astype(np.uint8) if suffix == ".png" else values, place, partial)
        except Exception as error:
            raise OSError(f"{path}: can't be written: {reason(error)}; check the folder's rights and space.") from error
    return target


def _write_by_itk(values: NDArray, grid: Grid, path: Path) -> None:
    import itk

    stored = itk.image_from_array(np.ascontiguousarray(values.T))
    set_geometry(stored, grid)
    with quiet():
        itk.imwrite(stored, str(path), compression=True)
    _load_whole(str(path))


def check_common_labels(moving: Tensor, fixed: Tensor) -> None:
    """Raise ValueError when two label maps ``(1, *spatial)`` hold labels, but none in common."""
    held = [[int(i) for i in torch.as_tensor(label).unique() if i != 0] for label in (moving, fixed)]
    if all(held) and not {*held[0]} & {*held[1]}:
        names = " and ".join(", ".join(map(str, ids[:10])) + (", …" if len(ids) > 10 else "") for ids in held)
        raise ValueError(
            f"moving_label and fixed_label have no label in common, they hold {names}; give each structure the same "
            "number in both."
        )


def check_label_inside(label: Tensor, grid: Grid, source: str | Path) -> None:
    """Raise ValueError naming ``source`` when no labelled voxel of ``label (1, *spatial)`` lies inside ``grid``."""
    voxels = torch.as_tensor(label)[0].nonzero().cpu().numpy()
    if not grid.contains(Grid.of(label).to_world(voxels)).any():
        raise ValueError(
            f"{source}: lies off the image: none of its {len(voxels)} labelled voxels is inside; give the label of "
            "this image, with its origin, spacing and direction."
        )


def _read(path: Path, precision: type[np.floating], indices: bool = False) -> tuple[NDArray, Grid]:
    """The values ``(*spatial)`` and the grid of ``path``, once it is known to be whole, grey and of 2 or 3 axes.

    With ``indices`` those into a palette serve as well.
    """
    if not path.exists():
        raise FileNotFoundError(f"no such image: {path}; check the path.")
    with reading(path, f"can't be read as an image ({{}}); {DAMAGED}."):
        return _values(path, precision, indices)


def _values(path: Path, precision: type[np.floating], indices: bool) -> tuple[NDArray, Grid]:
    if indices and path.is_file() and suffix_of(path, (".png",)):
        picture = _picture(path)
        if picture.mode == "P":
            found = np.asarray(picture, dtype=precision).T
            return found, Grid(found.shape, np.diag([-1.0, -1, 1]))  # where ITK places pictures
    read = _read_nifti if path.is_file() and suffix_of(path, (*NIFTI, *FREESURFER)) else _read_by_itk
    return read(path, precision)


def _picture(file: str | Path) -> Any:
    """A PNG or JPEG, read to its end."""
    from PIL import Image as Picture

    with Picture.open(file) as picture:
        check_room(picture.size, 1, Path(file), SMALL, DEFLATED)
        picture.load()
    return picture


def _read_nifti(path: Path, precision: type[np.floating]) -> tuple[NDArray, Grid]:
    """Without ITK, whose loading takes longer than all of this; a NIfTI is placed where ITK places it."""
    image, place = read_nifti(path)
    size, components = list(image.shape), 1
    if len(size) > 4 and size[3] == 1:  # a vector for each voxel
        components, size = size[4], size[:3]
    while len(size) > 3 and size[-1] == 1:
        size.pop()
    components *= values_per_voxel(image)
    _check_size(size, components, path)
    kept = [*range(len(size)), 3]
    grid = Grid(tuple(size), place[np.ix_(kept, kept)])
    check_place(grid, path)
    stored: Any = image.dataobj
    whole = stored.dtype.kind in "iu" and stored.dtype.itemsize <= 4 and (stored.slope, stored.inter) == (1, 0)
    if precision is np.float64 and whole:  # labels, which take an eighth as they are
        return np.asanyarray(stored).reshape(size), grid
    small = stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2  # whose multiples single precision holds
    return np.asanyarray(stored, dtype=np.float32 if small else precision).reshape(size), grid


def values_per_voxel(image: nib.Nifti1Image) -> int:
    """Three of one in colour, two of a complex one."""
    kind = image.get_data_dtype()
    return len(kind.fields) if kind.fields else 2 if kind.kind == "c" else 1


def check_place(grid: Grid, path: str | Path) -> None:
    """Raise ValueError naming ``path`` where the axes of its grid are not at right angles."""
    try:
        geometry(grid)
    except ValueError as error:
        raise ValueError(
            f"{path}: its axes are not at right angles (a sheared affine), which ITK and the transforms that are "
            "written here can't express; resample it first, such as by nibabel.processing.resample_to_output."
        ) from error


def _read_by_itk(path: Path, precision: type[np.floating]) -> tuple[NDArray, Grid]:
    import itk

    with quiet():
        files = series_files(path) if path.is_dir() else [str(path)]
    if len(files) == 1 and is_dicom(Path(files[0])):
        check_elements(Path(files[0]))
    with quiet():
        header = itk_header(files[0])
    size = [header.GetDimensions(axis) for axis in range(header.GetNumberOfDimensions())]
    _check_size(size, header.GetNumberOfComponents(), path)
    slices = slices_of(files) if header.GetNameOfClass() == "GDCMImageIO" else []
    order, placed = stacked(slices, path) if len(slices) > 1 else (None, None)
    if len(files) > 1 and order is not None:
        files, order = [files[i] for i in order], None
    with quiet():
        image_type = itk.Image[itk.F if precision is np.float32 else itk.D, len(size)]
        if len(files) > 1:
            reader = itk.ImageSeriesReader[image_type].New(
                FileNames=files, ImageIO=header, ForceOrthogonalDirection=False
            )
        else:
            _load_whole(files[0])
            reader = itk.ImageFileReader[image_type].New(FileName=files[0], ImageIO=header)
        reader.Update()
    image = reader.GetOutput()
    if suffix_of(path, (".hdr", ".img")):
        nifti_place(path)  # which says so where other tools place it elsewhere
    values = itk.array_view_from_image(image).T
    return values if order is None else values[..., order], placed or grid_of_itk(image)


def _check_size(size: Sequence[int], components: int, path: Path) -> None:
    if len(size) not in (2, 3):
        raise ValueError(
            f"{path}: has {len(size)} axes {tuple(size)}, expected 2 or 3; 'register_series' takes a series, otherwise "
            "extract one time point or channel."
        )
    if components > 1:
        raise ValueError(
            f"{path}: has {components} values per voxel (colour, vector or complex), expected one; convert it to grey "
            "values or extract one component."
        )
    if sum(n > 1 for n in size) < 2:
        raise ValueError(
            f"{path}: has size {tuple(size)}, fewer than two axes of 2 voxels or more; give a whole image."
        )


def _load_whole(file: str) -> None:
    """Raise where ITK would fill up a file that ends early with whatever is in memory, or with grey."""
    name = file.lower()
    if name.endswith((".hdr", ".img")):
        volume: Any = nib.load(file)
        check_nibabel(volume)
        check_finite(np.asanyarray(volume.dataobj), file)  # ITK reads NaN and infinity as 0
    if name.endswith((".png", ".jpg", ".jpeg")):
        _picture(file)


def _tensor(values: NDArray, grid: Grid, path: str | Path, track_meta: bool) -> Any:
    place, meta = torch.from_numpy(grid.affine), {"filename_or_obj": str(path)}
    if not track_meta:
        return Image(torch.from_numpy(values[None]), place, meta)
    from monai.data import MetaTensor  # takes seconds to load

    return MetaTensor(torch.from_numpy(values[None]), affine=place, meta=meta)


def _storable(image: Tensor, source: str | Path) -> NDArray:
    values = image.float().numpy() if image.is_floating_point() else image.numpy()
    if values.dtype.kind == "f":
        return values
    low, high = int(values.min()), int(values.max())
    for kind in (np.uint8, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return values.astype(kind)
    raise ValueError(f"{source}: values {low} to {high} don't fit into 32 bits; write them as floats.")


def _packed(image: Tensor, stored: Stored, suffix: str, source: str | Path) -> NDArray:
    """What a file of a format holds of an image, so that it reads back as stored alike."""
    numbers = stored.pack(image.detach().cpu()[0].numpy())
    if suffix in NIFTI:
        return numbers
    try:
        numbers = stored.unpack(numbers)
    except ValueError as error:
        raise ValueError(
            f"{source}: {error}, which {suffix} can't state; write .nii.gz, or leave out dtype."
        ) from error
    if numbers.dtype in OF_ITK:
        return numbers
    return _storable(torch.from_numpy(numbers.astype(np.int64)), source)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what ITK's libraries print to the process's stderr, past Python; their failures are raised all the same."""
    with LOCK:
        sys.stderr.flush()
        saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(nowhere)
