"""Where an image lies, to and from ITK; and of the two places that a NIfTI file may state, the one that ITK takes."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fmirnet_monai.utils import warn
from fmirnet_monai.version import __version__

from .grid import Grid, transform
from .headers import check_nibabel, check_stated_place

APART = 0.1  # voxels between the two places of a NIfTI at any corner, from which on it is said
ROUNDING = 1e-3  # voxels that single precision may set them apart
RIGHT = 1e-4  # cosine of two axes that ITK still takes for right angles
DESCRIPTION = 79  # characters that a NIfTI's has room for
SLIGHT = 0.1  # degrees off right angles that axes may lie by rounding
PLACE = ["pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z"]
PLACE += [f"{kind}_{axis}" for kind, axes in (("quatern", "bcd"), ("qoffset", "xyz")) for axis in axes]
SAID: set[Path] = set()
LOCK = threading.Lock()


def flip(dims: int) -> NDArray[np.float64]:
    """RAS+ to LPS, which is its own inverse: the signs of the first two axes."""
    return np.diag([-1.0, -1.0, 1.0][:dims])


def geometry(grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Origin, spacing and direction that ITK knows a grid by, LPS.

    Raises:
        ValueError: when the grid's axes are not at right angles, which ITK can't express.
    """
    lps = flip(grid.dims) @ grid.affine[:-1]
    direction = lps[:, :-1] / grid.spacing
    if not np.allclose(direction.T @ direction, np.eye(grid.dims), atol=RIGHT):
        raise ValueError(
            f"the grid's axes are not at right angles, ITK can't express its affine {grid.affine.tolist()}"
        )
    return lps[:, -1], grid.spacing, direction


def from_geometry(shape: Sequence[int], origin: ArrayLike, spacing: ArrayLike, direction: ArrayLike) -> Grid:
    """The grid that ITK knows by these, LPS."""
    affine = np.eye(len(shape) + 1)
    affine[:-1, :-1] = np.asarray(direction) * np.asarray(spacing)
    affine[:-1, -1] = np.asarray(origin)
    affine[:-1] = flip(len(shape)) @ affine[:-1]
    return Grid(tuple(shape), affine)


def set_geometry(image: Any, grid: Grid) -> None:
    """Give an ITK image the spacing, origin and direction of ``grid``; errors as in :py:func:`geometry`."""
    import itk

    origin, spacing, direction = geometry(grid)
    image.SetSpacing([float(s) for s in spacing])
    image.SetOrigin([float(v) for v in origin])
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(direction)))


def grid_of_itk(image: Any) -> Grid:
    """Grid of an ITK image."""
    import itk

    direction = itk.array_from_matrix(image.GetDirection())
    return from_geometry(tuple(itk.size(image)), tuple(image.GetOrigin()), tuple(image.GetSpacing()), direction)


def nifti(values: NDArray, grid: Grid, code: int = 1, scale: tuple[float, float] | None = None) -> nib.Nifti1Image:
    """A NIfTI image of ``values (*grid.shape, ...)``, which states where its grid lies as qform and as sform.

    Args:
        values: as they are stored.
        grid: of the image.
        code: of the space that it lies in, 1 a scanner's, 2 another image's.
        scale: slope and intercept that values are read with.
    """
    affine = np.eye(4)
    kept = [*range(grid.dims), 3]
    affine[np.ix_(kept, kept)] = grid.affine
    image: Any = nib.Nifti1Image(values, None, dtype=values.dtype)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = f"fmirnet_monai {__version__}"[:DESCRIPTION].encode()
    image.set_qform(affine, code)
    image.set_sform(affine, code)
    if scale is not None:
        image.header.set_slope_inter(*scale)
    return image


def read_nifti(path: str | Path) -> tuple[nib.Nifti1Image, NDArray[np.float64]]:
    """A NIfTI file and where ITK places it, ``(4, 4)`` from voxel to RAS+ mm, see :py:func:`nifti_place`."""
    image: Any = nib.load(path)
    check_nibabel(image)
    place = nifti_place(path)
    return image, image.affine if place is None else place


def nifti_affine(header: Any) -> NDArray[np.float64]:
    """Where ITK, ANTs and 3D Slicer place a NIfTI, ``(4, 4)`` from voxel to RAS+ mm: which of its two geometries they
    take is ITK's to say.

    Raises:
        RuntimeError: when ITK can't express either, as a sheared sform without a qform.
        ValueError: when one of them is not finite.
    """
    import itk

    check_stated_place(header)
    alike = nib.Nifti1Header()
    alike.set_data_shape((1, 1, 1))
    alike.set_data_dtype(np.uint8)
    for name in PLACE:
        alike[name] = header[name]
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/geometry.nii"
        nib.save(nib.Nifti1Image(np.zeros((1, 1, 1), np.uint8), None, alike), file)
        with _silent():
            return grid_of_itk(itk.imread(file, itk.UC)).affine


@np.errstate(all="ignore")  # of numbers that are checked
def nifti_place(path: str | Path) -> NDArray[np.float64] | None:
    """Where ITK places a NIfTI file on which other tools may differ, ``(4, 4)`` from voxel to RAS+ mm.

    A NIfTI may state its place twice, as qform and as sform. ITK takes the sform if its code is 1 and its axes are at
    right angles, else the qform where there is one; nibabel, and so MONAI, always the sform. Where the two differ by
    more than 0.1 voxel at any corner, a warning says so, once a file.

    Axes that are not at right angles, where there is no qform, ITK refuses. Those that are off by rounding are set
    right here, with a warning; ITK, where it is told to be permissive, transposes their directions (5.4).

    Returns:
        None where all agree: one place, or two that are alike. A sheared sform without a qform, which ITK refuses, is
        given as it stands.
    """
    header: Any = nib.load(path).header
    if "qform_code" not in header:
        return None
    stated = {name: form for name in ("qform", "sform") if (form := _stated(header, name)) is not None}
    shape = (*header.get_data_shape(), 1, 1, 1)[:3]
    forms = list(stated.values())
    whole = len(forms) == sum(int(header[f"{name}_code"]) > 0 for name in ("qform", "sform"))
    plain = whole and forms and all(_fits(form, header) for form in forms)
    if plain and (len(forms) == 1 or _apart(forms[0], forms[1], shape)[0] <= ROUNDING):
        return _set_right(forms[0], shape, Path(path))
    try:
        taken = nifti_affine(header)
    except (RuntimeError, ValueError):
        right = _set_right(forms[0], shape, Path(path)) if forms else None
        return forms[0] if forms and right is None else right
    if len(stated) < 2:
        return taken
    name, other = sorted(stated, key=lambda form: _apart(taken, stated[form], shape)[0])
    voxels, distance = _apart(stated[name], stated[other], shape)
    if voxels > APART and _first_time(Path(path)):
        warn(
            f"{path}: its qform and its sform lie up to {distance:.3g} mm ({voxels:.3g} voxels) apart; taken is the "
            f"{name}, as in ITK, ANTs and 3D Slicer, while some tools take the {other}. Make both the same: "
            f"'fslorient -copy{name}2{other}', or save it again from 3D Slicer."
        )
    return taken


def _set_right(form: NDArray[np.float64], shape: tuple[int, ...], path: Path) -> NDArray[np.float64] | None:
    """The nearest place of the same origin and spacing whose axes are at right angles, where they are so but for
    rounding; None where ITK takes them as they are, or never would.
    """
    spacing = np.linalg.norm(form[:3, :3], axis=0)
    direction = form[:3, :3] / spacing
    off = np.abs(np.triu(direction.T @ direction, 1)).max()
    angle = np.degrees(np.arcsin(min(1.0, off)))
    if off <= RIGHT or angle > SLIGHT:
        return None
    left, _, right = np.linalg.svd(direction)
    whole = form.copy()
    whole[:3, :3] = left @ right * spacing
    if _first_time(path):
        voxels, distance = _apart(whole, form, shape)
        warn(
            f"{path}: its axes are {angle:.2g} degrees off right angles and were set right, by up to {distance:.2g} mm "
            f"({voxels:.2g} voxels) at a corner."
        )
    return whole


def _stated(header: Any, name: str) -> NDArray[np.float64] | None:
    """One of the two places, None where the header has it not or it can't be made out."""
    try:
        form: NDArray[np.float64] | None = getattr(header, f"get_{name}")(coded=True)[0]
    except ValueError:  # a quaternion that is no rotation
        return None
    return form if form is not None and np.isfinite(form).all() else None


def _fits(form: NDArray[np.float64], header: Any) -> bool:
    """Whether its voxels are as large as the header says, in mm; where not, tools do as they please."""
    zooms = header.get_zooms()[:3]
    in_mm = header.get_xyzt_units()[0] in ("mm", "unknown")
    return in_mm and bool(np.allclose(np.linalg.norm(form[:3, : len(zooms)], axis=0), zooms))


def _apart(one: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[float, float]:
    """How far a corner of an image in one place lies from the same corner in the other: voxels of the first, and mm."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1).T
    gap = transform(other, corners) - transform(one, corners)
    return float(np.abs(gap @ np.linalg.pinv(one[:3, :3]).T).max()), float(np.linalg.norm(gap, axis=1).max())


def _first_time(path: Path) -> bool:
    with LOCK:
        new = path.absolute() not in SAID
        SAID.add(path.absolute())
        return new


@contextmanager
def _silent() -> Iterator[None]:
    """Without ITK's own warnings, which name a temporary file."""
    import itk

    with LOCK:
        before = itk.Object.GetGlobalWarningDisplay()
        itk.Object.SetGlobalWarningDisplay(False)
        try:
            yield
        finally:
            itk.Object.SetGlobalWarningDisplay(before)
