"""Transforms to and from ITK's files, which SimpleITK, ANTs and 3D Slicer read and write too.

Fields in image files: :py:mod:`.files`; in HDF5: :py:mod:`.hdf5`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fmirnet_monai.formats import DICOM, HDF5, TRANSFORMS, WRITTEN_TRANSFORMS, WRITTEN_VOLUMES, known_suffix, suffix_of
from fmirnet_monai.utils import reading, reason, replacing

from .dicom import read_registration
from .dicom_elements import is_dicom
from .displacement import DisplacementField, Inverse
from .files import from_itk, read_displacement, to_lps, write_displacement
from .geometry import flip, set_geometry
from .grid import Grid
from .hdf5 import read_hdf5, write_hdf5
from .maps import Affine, Map, Mapped, chain
from .parameters import check_transform


def flip_lps(points: ArrayLike) -> NDArray[np.float64]:
    """Positions ``(..., D)`` in mm from RAS+ to LPS or back."""
    return np.asarray(points, dtype=np.float64) @ flip(np.shape(points)[-1])


@dataclass(frozen=True, eq=False)
class ItkTransform(Map):
    """A transform of ITK that is neither affine nor a displacement field, such as B-splines.

    ITK knows no map of many points at once: on a grid it is fast, for single points it takes some microseconds each. It
    is taken to be known everywhere, as ITK does; B-splines move nothing beyond their control points.

    Attributes:
        transform: of ITK, in double precision.
    """

    transform: Any

    @property
    def dims(self) -> int:
        return int(self.transform.GetInputSpaceDimension())

    def __call__(self, points: Tensor) -> Mapped:
        places = flip_lps(points.cpu().double().reshape(-1, self.dims).numpy())
        moved = flip_lps(
            np.array([list(self.transform.TransformPoint(p)) for p in places.tolist()]).reshape(-1, self.dims)
        )
        inside = torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)
        return torch.from_numpy(moved.copy()).to(points).reshape(points.shape), inside

    def at(self, grid: Grid, slab: slice = slice(None), like: Tensor | None = None) -> Mapped:
        import itk

        begin, end, _ = slab.indices(grid.shape[0])
        affine = grid.affine.copy()
        affine[:-1, -1] = grid.to_world(np.array([begin, *[0] * (grid.dims - 1)]))
        part = Grid((end - begin, *grid.shape[1:]), affine)
        sampler = itk.TransformToDisplacementFieldFilter[
            itk.Image[itk.Vector[itk.F, grid.dims], grid.dims], itk.D
        ].New()
        sampler.SetTransform(self.transform)
        sampler.UseReferenceImageOn()
        reference = itk.Image[itk.UC, grid.dims].New(Regions=list(part.shape))
        set_geometry(reference, part)
        sampler.SetReferenceImage(reference)
        sampler.Update()
        vectors = np.moveaxis(itk.array_view_from_image(sampler.GetOutput()), range(grid.dims), range(grid.dims)[::-1])
        points = grid.to_world(grid.indices(slab, like))
        moved = points + torch.from_numpy(flip_lps(vectors)).to(points)
        return moved, torch.ones(moved.shape[:-1], dtype=torch.bool, device=moved.device)

    def inverse(self) -> Map:
        """ITK's own inverse; ValueError where it has none."""
        back = self.transform.GetInverseTransform()
        if back is None:
            name = type(self.transform).__name__.removeprefix("itk")
            raise ValueError(f"{name} has no inverse of its own; make it a field first: compose it onto a reference.")
        return from_itk_transform(back)


def from_itk_transform(transform: Any) -> Map:
    """A transform of ITK as a map: an affine one stays affine, a composite becomes a chain."""
    if hasattr(transform, "GetNumberOfTransforms"):
        import itk

        inner = [transform.GetNthTransform(i) for i in range(transform.GetNumberOfTransforms())]
        return chain(from_itk_transform(itk.down_cast(part)) for part in inner[::-1])  # the last one is applied first
    if transform.IsLinear():
        return _affine(transform)
    if hasattr(transform, "GetDisplacementField"):
        return from_itk(transform.GetDisplacementField())
    return ItkTransform(transform)


def _affine(transform: Any) -> Affine:
    """The matrix in RAS+ mm: where it takes the origin and the unit vectors."""
    dims = transform.GetInputSpaceDimension()
    probes = np.concatenate([np.zeros((1, dims)), np.eye(dims)])
    images = flip_lps([list(transform.TransformPoint(probe.tolist())) for probe in flip_lps(probes)])
    matrix = np.eye(dims + 1)
    matrix[:-1, -1] = images[0]
    matrix[:-1, :-1] = (images[1:] - images[0]).T
    return Affine(matrix)


def read_transform(path: str | Path) -> Map:
    """Read a displacement field, any transform of ITK (``.h5``, ``.tfm``, ``.txt``, ``.mat``, ``.xfm``), or a DICOM
    (Deformable) Spatial Registration object.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it can't be read whole, or is not finite.
    """
    if Path(path).is_file() and (remedy := _of_another_tool(Path(path))):
        raise ValueError(f"{path}: {remedy}")
    dicom = suffix_of(path, DICOM) or (Path(path).is_file() and is_dicom(Path(path)))
    if not dicom and not suffix_of(path, TRANSFORMS):
        return read_displacement(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such transform: {path}")
    remedy = "give its map in another form" if dicom else "write it by ITK or ANTs"
    with reading(path, f"not a transform, or damaged: {{}}; get it again, or {remedy}."):
        found = read_registration(path) if dicom else read_hdf5(path) if suffix_of(path, HDF5) else None
        if found is None:
            import itk

            if not suffix_of(path, HDF5):
                check_transform(Path(path))
            found = chain(from_itk_transform(transform) for transform in itk.transformread(str(path))[::-1])
    for part in found.parts():
        if isinstance(part, DisplacementField) and not part.ddf.isfinite().all():
            raise ValueError(f"{path}: {int((~part.ddf.isfinite()).any(0).sum())} of its vectors are NaN or infinite.")
    return found


def _of_another_tool(path: Path) -> str:
    """What a text file of a transform of FSL, FreeSurfer, AFNI or elastix is, and how to bring it here; else ``""``."""
    with path.open("rb") as file:
        text = file.read(4096).decode("ascii", "replace").strip()
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    if "\nnxforms" in text and "=" in text:
        return "is a transform of FreeSurfer; convert it: lta_convert --inlta IN.lta --outitk OUT.txt."
    if re.search(r"^\(Transform(Parameters)? ", text, re.MULTILINE):
        return (
            "is a transform of elastix; write its field by transformix -def all -tp IN.txt -out DIR and give "
            "DIR/deformationField.nii or .mhd."
        )
    if rows and all(map(_numeric, rows)):
        if [len(row) for row in rows] == [4] * 4 and [float(word) for word in rows[3]] == [0, 0, 0, 1]:
            return (
                "is a matrix of FSL, which holds only with both of its images; convert it: c3d_affine_tool -ref "
                "FIXED.nii.gz -src MOVING.nii.gz IN.mat -fsl2ras -oitk OUT.tfm."
            )
        if sum(map(len, rows)) == 12:
            return "is an affine transform of AFNI; convert it, such as by nitransforms (io.afni.AFNILinearTransform)."
    return ""


def _numeric(row: Sequence[str]) -> bool:
    return all(re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", word) for word in row)


def write_transform(found: Map, path: str | Path, grid: Grid | None = None) -> Path:
    """Write a map, whole or not at all; the suffix chooses the form.

    Args:
        found: to write.
        path: ``.nii.gz``, ``.nii``, ``.mha`` or ``.nrrd`` for a displacement field; ``.h5`` for a transform of ITK, a
            composite of its parts, each as it is; ``.tfm``, ``.txt`` or ``.mat`` for an affine one.
        grid: that a displacement field, or in ``.h5`` a map with an inverse in it, is sampled on; by default that of
            the part that is applied first.

    Raises:
        ValueError: for another suffix, or a map that the format can't hold or that needs a grid.
        OSError: when it can't be written.
    """
    suffix = known_suffix(path, (*WRITTEN_VOLUMES, *WRITTEN_TRANSFORMS))
    if suffix in WRITTEN_VOLUMES:
        place = grid or own_grid(found)
        if place is None:
            raise ValueError(f"{path}: this transform has no grid of its own; name a reference image, or write .h5.")
        return write_displacement(DisplacementField.of(found, place)[0], path)
    if suffix != ".h5" and not isinstance(found, Affine):
        raise ValueError(f"{path}: {suffix} holds an affine transform, this one is none; write .h5, .nii.gz or .mha.")
    with replacing(path) as partial:
        try:
            _write(found, partial, grid)
        except (RuntimeError, OSError) as error:
            raise OSError(f"{path}: can't be written: {reason(error)}; check the folder's rights and space.") from error
    return Path(path)


def _write(found: Map, path: Path, grid: Grid | None) -> None:
    parts = list(found.parts())
    if grid is not None and any(isinstance(part, Inverse) for part in parts):
        parts = [DisplacementField.of(found, grid)[0]]
    held = [_sampled(part) for part in parts]
    plain = [part for part in held if not isinstance(part, ItkTransform)]
    if suffix_of(path, HDF5) and len(plain) == len(held):
        write_hdf5(plain, path)
    else:
        import itk

        itk.transformwrite([_to_itk_transform(held)], str(path))


def own_grid(found: Map) -> Grid | None:
    """The grid that a map's first part lies on, where it has one."""
    first = found.parts()[0]
    if isinstance(first, Inverse):
        return first.field.grid
    return first.grid if isinstance(first, DisplacementField) else None


def _sampled(part: Map) -> Affine | DisplacementField | ItkTransform:
    """What a file can hold of a map: an inverse is sampled on its field's grid."""
    if isinstance(part, Inverse):
        return DisplacementField.of(part, part.field.grid)[0]
    assert isinstance(part, Affine | DisplacementField | ItkTransform), part
    return part


def _to_itk_transform(parts: Sequence[Affine | DisplacementField | ItkTransform]) -> Any:
    """One transform of ITK, a composite where there are several parts."""
    if len(parts) == 1 and isinstance(parts[0], ItkTransform):
        return parts[0].transform
    if len(parts) == 1 and isinstance(parts[0], Affine):
        return _to_itk_affine(parts[0])
    import itk

    composite = itk.CompositeTransform[itk.D, parts[0].dims].New()
    for part in parts[::-1]:  # the last one added is the first one applied
        if isinstance(part, ItkTransform):
            composite.AddTransform(part.transform)
        elif isinstance(part, Affine):
            composite.AddTransform(_to_itk_affine(part))
        else:
            vectors = itk.image_view_from_array(to_lps(part).astype(np.float64), is_vector=True)
            set_geometry(vectors, part.grid)
            inner = itk.DisplacementFieldTransform[itk.D, part.dims].New()
            inner.SetDisplacementField(vectors)
            composite.AddTransform(inner)
    return composite


def _to_itk_affine(found: Affine) -> Any:
    import itk

    turn = flip(found.dims)
    result = itk.AffineTransform[itk.D, found.dims].New()
    result.SetMatrix(itk.matrix_from_array(np.ascontiguousarray(turn @ found.matrix[:-1, :-1] @ turn)))
    result.SetOffset([float(v) for v in turn @ found.matrix[:-1, -1]])
    return result
