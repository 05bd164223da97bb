"""Series of images over time: one file of 4 axes, a clip, or a file for each frame."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmirnet_monai.formats import NIFTI, PAIRS, suffix_of
from fmirnet_monai.spatial import Grid
from fmirnet_monai.spatial.geometry import from_geometry, nifti, read_nifti
from fmirnet_monai.spatial.headers import itk_header
from fmirnet_monai.spatial.image import Image
from fmirnet_monai.utils import reading, reason, replacing

from .file_type import nifti_code
from .images import DAMAGED, check_place, quiet, read_image, values_per_voxel
from .stored import ALIGNED
from .volume import check_finite, natural_order

CLIPS = (".avi", ".mp4", ".mov")
UNKNOWN = "unknown"
TIME_UNITS = ("sec", "msec", "usec")


@dataclass(frozen=True)
class TimeAxis:
    """When the frames were taken, as a NIfTI says it.

    Attributes:
        spacing: from frame to frame.
        unit: of it, ``sec``, ``msec``, ``usec`` or ``unknown``.
        offset: of the first frame.
    """

    spacing: float = 1.0
    unit: str = UNKNOWN
    offset: float = 0.0


@dataclass(frozen=True, eq=False)
class Series:
    """Frames of one size and place.

    Attributes:
        frames: images ``(1, *spatial)`` in float32, in order of time.
        names: of each, for messages and tables.
        files: that they were read from.
        time: their time axis.
    """

    frames: Sequence[Tensor]
    names: Sequence[str]
    files: Sequence[str]
    time: TimeAxis

    @property
    def grid(self) -> Grid:
        """Of every frame."""
        return Grid.of(self.frames[0])

    @property
    def code(self) -> int:
        """NIfTI's code of the space that they lie in."""
        return nifti_code(self.files[0])


def read_series(images: str) -> Series:
    """Read a series.

    Args:
        images: a NIfTI, MHA or NRRD of 4 axes, the last one time; a clip (AVI, MP4, MOV), whose pixels are 1 mm as
            those of a PNG; or a pattern with ``*`` of files or DICOM folders, one a frame, in the order of the
            numbers in their names (``t2`` before ``t10``).

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it can't be read whole, has fewer than two frames, one of a single value, or of several files
            not all lie on one grid.
    """
    if Path(images).is_file():
        read = _read_clip if suffix_of(images, CLIPS) else _read_nifti if suffix_of(images, NIFTI) else _read_by_itk
        series = read(images)
    else:
        files = series_of(images)
        frames = [read_image(file, track_meta=False) for file in files]
        series = Series(frames, files, files, TimeAxis())
    if len(series.frames) < 2:
        raise ValueError(f"{images}: has one frame, a series two or more; 'register' takes a pair of images.")
    for frame, name in zip(series.frames, series.names, strict=True):
        check_finite(frame.numpy(), name)
        if frame.min() == frame.max():
            raise ValueError(f"{name}: all its intensities are {float(frame.flatten()[0]):g}; leave this frame out.")
        if not Grid.of(frame).matches(series.grid, tolerance=0.1):
            raise ValueError(
                f"{name}: lies on another grid than {series.names[0]}: {Grid.of(frame).difference(series.grid)}; "
                "resample all frames onto one."
            )
    return series


def series_of(pattern: str) -> list[str]:
    """The images that a pattern names, in natural order: numbers in their names count as numbers.

    Raises:
        FileNotFoundError: when there is none.
    """
    found = [file for file in glob.glob(pattern, recursive=True) if Path(file).is_dir() or suffix_of(file)]
    second = {str(Path(file).with_suffix(PAIRS[".hdr"])) for file in found if suffix_of(file, (".hdr",))}
    files = sorted({*found} - second, key=lambda file: [natural_order(Path(part)) for part in Path(file).parts])
    if not files:
        raise FileNotFoundError(f'no such series: {pattern}; check the path, and quote a pattern: "t*.nii.gz".')
    return files


def write_series(values: NDArray, path: str | Path, grid: Grid, time: TimeAxis, code: int = ALIGNED) -> Path:
    """Write a series as NIfTI of 4 axes, whole or not at all.

    Args:
        values: ``(*grid.shape, T)``, of the type to store; a 2-D grid becomes one slice.
        path: ``.nii.gz`` or ``.nii``.
        grid: of every frame.
        time: goes into the header, ``pixdim[4]``, ``xyzt_units`` and ``toffset``.
        code: of the space that it lies in, see :py:func:`fmirnet_monai.data.nifti_code`.

    Raises:
        OSError: when it can't be written.
    """
    image = nifti(values.reshape(*grid.shape, *[1] * (3 - grid.dims), values.shape[-1]), grid, code)
    image.header.set_zooms((*image.header.get_zooms()[:3], time.spacing))
    image.header.set_xyzt_units("mm", time.unit)
    image.header["toffset"] = time.offset
    with replacing(path) as partial:
        try:
            nib.save(image, partial)
        except Exception as error:
            raise OSError(f"{path}: can't be written: {reason(error)}; check the folder's rights and space.") from error
    return Path(path)


def _read_nifti(file: str) -> Series:
    with reading(file, f"can't be read as an image ({{}}); {DAMAGED}."):
        image, place = read_nifti(file)
        header: Any = image.header
        _check_axes(image.shape, file, values_per_voxel(image))
        grid = Grid(tuple(image.shape[:3]), place)
        check_place(grid, file)
        values = np.asanyarray(image.dataobj, dtype=np.float32)
        unit, spacing = header.get_xyzt_units()[1], float(header.get_zooms()[3])
        offset = float(header["toffset"]) if "toffset" in header else 0.0
    return _from_array(values, grid, file, _time(spacing, unit, offset))


def _read_by_itk(file: str) -> Series:
    with reading(file, f"can't be read as an image ({{}}); {DAMAGED}."), quiet():
        import itk

        header = itk_header(file)
        axes = range(header.GetNumberOfDimensions())
        _check_axes([header.GetDimensions(axis) for axis in axes], file, header.GetNumberOfComponents())
        reader = itk.ImageFileReader[itk.Image[itk.F, 4]].New(FileName=file, ImageIO=header)
        reader.Update()
        image = reader.GetOutput()
        values = itk.array_from_image(image).T
        origin, spacing = ([*part][:3] for part in (image.GetOrigin(), image.GetSpacing()))
        grid = from_geometry(values.shape[:3], origin, spacing, itk.array_from_matrix(image.GetDirection())[:3, :3])
        check_place(grid, file)
    return _from_array(values, grid, file, _time(float(image.GetSpacing()[3])))


def _time(spacing: float, unit: str = UNKNOWN, offset: float = 0.0) -> TimeAxis:
    """What of a header's time axis can be true."""
    if not (np.isfinite([spacing, offset]).all() and spacing > 0):
        return TimeAxis()
    return TimeAxis(spacing, unit, offset) if unit in TIME_UNITS else TimeAxis(spacing)


def _read_clip(file: str) -> Series:
    from .echo import read_clip  # its decoder takes a while to load

    values = np.moveaxis(read_clip(file), 0, -1)
    return _from_array(values, Grid(values.shape[:2], np.diag([-1.0, -1.0, 1.0])), file, TimeAxis())


def _from_array(values: NDArray, grid: Grid, file: str, time: TimeAxis) -> Series:
    frames = [np.ascontiguousarray(values[..., number], dtype=np.float32) for number in range(values.shape[-1])]
    names = [f"{file}, frame {number}" for number in range(len(frames))]
    return Series([Image(torch.from_numpy(frame[None]), grid.affine) for frame in frames], names, [file], time)


def _check_axes(size: Sequence[int], file: str, components: int = 1) -> None:
    size = [int(n) for n in size]
    if len(size) != 4 or components != 1 or sum(n > 1 for n in size[:3]) < 2:
        values = f" and {components} values per voxel" if components > 1 else ""
        raise ValueError(
            f"{file}: has size {tuple(size)}{values}, a series 4 axes, the last one time; or give a pattern of files, "
            "one a frame."
        )
