"""The affine stage, by elastix."""

from __future__ import annotations

import warnings
from typing import Any

import itk
import numpy as np
import torch
from monai.utils import convert_to_tensor
from numpy.typing import NDArray
from torch import Tensor

from fmirnet_monai.metrics import NMIMetric
from fmirnet_monai.spatial import DisplacementField, Grid
from fmirnet_monai.spatial.itk import flip_lps, set_geometry
from fmirnet_monai.utils import reason

from .optimise import resize

LARGEST = 128  # voxels along the longest axis
STAGES = {"translation": ("translation",), "rigid": ("rigid",), "affine": ("rigid", "affine")}


def register_affine(
    moving: Tensor,
    fixed: Tensor,
    kind: str = "affine",
    moving_grid: Grid | None = None,
    fixed_grid: Grid | None = None,
    iterations: int = 100,
) -> NDArray[np.float64]:
    """Align two images in world space by mutual information (Mattes), coarse to fine.

    Both starts are tried, from the positions in the headers and from the two images' centres together; the result with
    more mutual information wins. One with less than the unregistered pair is dropped, with a warning.

    Args:
        moving: ``(1, *spatial)``, any grid.
        fixed: the same. Two volumes of one slice in parallel planes are aligned within the plane.
        kind: ``"translation"``, ``"rigid"`` or ``"affine"`` (which begins with a rigid one).
        moving_grid: by default read from the image (a MetaTensor).
        fixed_grid: the same.
        iterations: of each of the levels.

    Returns:
        ``(D + 1, D + 1)`` in RAS+ mm, from the fixed image's space to the moving image's.

    Raises:
        ImportError: when itk-elastix is not installed.
        ValueError: for another ``kind``, a single slice against a volume or another plane, or when elastix fails.
    """
    if kind not in STAGES:
        raise ValueError(f"affine must be one of {tuple(STAGES)}, got {kind!r}.")
    if not hasattr(itk, "ElastixRegistrationMethod"):
        raise ImportError("the affine stage needs elastix: pip install itk-elastix, or turn it off.")
    grids = moving_grid or Grid.of(moving), fixed_grid or Grid.of(fixed)
    if any(min(grid.shape) < 2 for grid in grids):
        return _register_in_plane(moving, fixed, kind, grids, iterations)
    if any(max(grid.shape) > LARGEST for grid in grids):  # finer images cost minutes and change nothing
        coarse = [grid.with_longest_side(LARGEST) if max(grid.shape) > LARGEST else grid for grid in grids]
        images = [
            resize(convert_to_tensor(image, dtype=torch.float32, track_meta=False)[None], grid.shape)[0]
            for image, grid in zip((moving, fixed), coarse, strict=True)
        ]
        return register_affine(images[0], images[1], kind, coarse[0], coarse[1], iterations)
    overlap = grids[1].overlaps(grids[0])
    still = DisplacementField.identity(grids[1])

    def likeness(matrix: NDArray[np.float64]) -> float:
        warped = still.then_affine(matrix).warp(moving, grids[0], padding_mode="zeros")
        return _mutual_information(warped, fixed)

    found, reasons = [], []
    for from_headers in (True, False) if overlap else (False,):
        try:
            found.append(_run_elastix(moving, fixed, kind, grids, iterations, from_headers))
        except RuntimeError as error:
            reasons.append(reason(error))
    if not found:
        raise ValueError(f"affine: elastix found no {kind} alignment ({reasons[0]}); try affine off.")
    best = max(found, key=likeness)
    identity = np.eye(grids[1].dims + 1)
    if overlap and likeness(best) < likeness(identity):
        warnings.warn(f"affine: the {kind} stage made the images less alike and is left out.", stacklevel=2)
        return identity
    return best


def _run_elastix(
    moving: Tensor, fixed: Tensor, kind: str, grids: tuple[Grid, Grid], iterations: int, from_headers: bool
) -> NDArray[np.float64]:
    """The stages of ``kind`` one after another, started where the headers say or with the two centres together."""
    parameters = itk.ParameterObject.New()
    levels = int(np.clip(np.log2(min(max(grid.shape) for grid in grids) / 16), 1, 4))
    for stage in STAGES[kind]:
        settings = dict(parameters.GetDefaultParameterMap(stage, levels))
        settings |= {
            "AutomaticTransformInitialization": ("false" if from_headers else "true",),
            "AutomaticTransformInitializationMethod": ("GeometricalCenter",),
            "MaximumNumberOfIterations": (str(iterations),),
            "NumberOfSpatialSamples": ("4096",),
            "NewSamplesEveryIteration": ("true",),
            "RandomSeed": ("121212",),
            "RequiredRatioOfValidSamples": ("0.05",),
            "WriteResultImage": ("false",),
        }
        parameters.AddParameterMap(settings)
    method = itk.ElastixRegistrationMethod.New(image_to_itk(fixed, grids[1]), image_to_itk(moving, grids[0]))
    method.SetParameterObject(parameters)
    method.SetLogToConsole(False)
    method.SetLogToFile(False)
    method.SetNumberOfThreads(1)  # the order in which samples are added up decides the last digits
    method.UpdateLargestPossibleRegion()
    return _matrix(method.ConvertToItkTransform(method.GetCombinationTransform()), grids[1].dims)


def _register_in_plane(
    moving: Tensor, fixed: Tensor, kind: str, grids: tuple[Grid, Grid], iterations: int
) -> NDArray[np.float64]:
    """The same for two volumes of one slice each: a 2-D map in the coordinates of the fixed image's plane."""
    kept = [[axis for axis, size in enumerate(grid.shape) if size > 1] for grid in grids]
    frame = grids[1].affine[:-1, kept[1]] / grids[1].spacing[kept[1]]  # (3, 2), the plane's axes
    planes = []
    for grid, axes in zip(grids, kept, strict=True):
        columns = grid.affine[:-1, axes]
        if any(len(both) != 2 for both in kept) or not np.allclose(frame @ (frame.T @ columns), columns, atol=1e-3):
            raise ValueError("affine: a single slice can be aligned with another one in a parallel plane only.")
        flat = np.eye(3)
        flat[:2, :2], flat[:2, 2] = frame.T @ columns, frame.T @ grid.affine[:-1, -1]
        planes.append(Grid(tuple(grid.shape[axis] for axis in axes), flat))
    slices = [
        convert_to_tensor(image, track_meta=False).reshape(1, *plane.shape)
        for image, plane in zip((moving, fixed), planes, strict=True)
    ]
    flat = register_affine(slices[0], slices[1], kind, planes[0], planes[1], iterations)
    matrix = np.eye(4)
    matrix[:-1, :-1] += frame @ (flat[:-1, :-1] - np.eye(2)) @ frame.T
    matrix[:-1, -1] = frame @ flat[:-1, -1]
    return matrix


def image_to_itk(image: Tensor, grid: Grid) -> Any:
    """A channel-first image ``(1, *grid.shape)`` as ITK image of floats on ``grid``.

    Raises:
        ValueError: when the grid's axes are not at right angles, which an ITK image can't express.
    """
    values = convert_to_tensor(image, dtype=torch.float32, track_meta=False).cpu().numpy()[0]
    stored = itk.image_from_array(np.ascontiguousarray(values.T))
    set_geometry(stored, grid)
    return stored


def _matrix(transform: Any, dims: int) -> NDArray[np.float64]:
    """An ITK transform that is affine, as matrix in RAS+ mm: where it takes the origin and the unit vectors."""
    probes = np.concatenate([np.zeros((1, dims)), np.eye(dims)])
    images = flip_lps([list(transform.TransformPoint(probe.tolist())) for probe in flip_lps(probes)])
    matrix = np.eye(dims + 1)
    matrix[:-1, -1] = images[0]
    matrix[:-1, :-1] = (images[1:] - images[0]).T
    return matrix


def _mutual_information(image: Tensor, fixed: Tensor) -> float:
    pair = [convert_to_tensor(tensor, dtype=torch.float32, track_meta=False)[None] for tensor in (image, fixed)]
    return float(torch.as_tensor(NMIMetric(bins=32)(*pair)))
