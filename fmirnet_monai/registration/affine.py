"""The affine stage, by elastix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import itk
import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_tensor
from torch import Tensor

from fmirnet_monai.metrics import NMIMetric
from fmirnet_monai.spatial import Affine, Grid, resample
from fmirnet_monai.spatial.geometry import set_geometry
from fmirnet_monai.spatial.itk import from_itk_transform
from fmirnet_monai.utils import reason, warn

LARGEST = 128  # voxels along the longest axis
STAGES = {"translation": ("translation",), "rigid": ("rigid",), "affine": ("rigid", "affine")}


def register_affine(
    moving: Tensor,
    fixed: Tensor,
    kind: str = "affine",
    moving_grid: Grid | None = None,
    fixed_grid: Grid | None = None,
    iterations: int = 100,
    moving_mask: Tensor | None = None,
    fixed_mask: Tensor | None = None,
) -> Affine:
    """Align two images in world space by mutual information (Mattes), coarse to fine.

    Both starts are tried, from the positions in the headers and from the two images' centres together. Of those that
    see at least half of what any of them sees, the one with the most mutual information of what it sees wins; the
    unregistered pair is one of them, and where it wins there is a warning.

    Args:
        moving: ``(1, *spatial)``, any grid.
        fixed: the same. Two volumes of one slice in parallel planes are aligned within the plane.
        kind: ``"translation"``, ``"rigid"`` or ``"affine"`` (which begins with a rigid one).
        moving_grid: by default read from the image (a MetaTensor).
        fixed_grid: the same.
        iterations: of each of the levels.
        moving_mask: ``(1, *spatial)`` on any grid in the moving image's space; where it is 0 the image says nothing.
        fixed_mask: the same of the fixed image.

    Returns:
        the map from the fixed image's space to the moving image's.

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
        return _register_in_plane(moving, fixed, kind, grids, iterations, (moving_mask, fixed_mask))
    images, masks = [], []
    for image, grid, mask in zip((moving, fixed), grids, (moving_mask, fixed_mask), strict=True):
        # finer images cost minutes and change nothing
        coarse = grid.with_longest_side(LARGEST) if max(grid.shape) > LARGEST else grid
        plain = convert_to_tensor(image, dtype=torch.float32, device="cpu", track_meta=False)
        values = resample(plain, coarse, grid=grid, antialias=True)[0] if coarse is not grid else plain
        images.append((values, coarse))
        masks.append(None if mask is None else resample(mask.cpu(), coarse, mode="nearest")[0] > 0)

    def likeness(found: Affine) -> tuple[float, float]:
        """Share of the fixed image that is seen, and mutual information of what is seen."""
        warped, inside = resample(images[0][0], images[1][1], found, grid=images[0][1])
        if masks[0] is not None:
            seen = resample(masks[0], images[1][1], found, grid=images[0][1], mode="nearest")[0][0]
            inside = inside & seen
        if masks[1] is not None:
            inside = inside & masks[1][0]
        share = float(inside.float().mean())
        information = _mutual_information(warped[:, inside], images[1][0][:, inside]) if share else np.nan
        return share, -np.inf if np.isnan(information) else information

    still = Affine.identity(grids[1].dims)
    overlap = grids[1].overlaps(grids[0])
    found, reasons = [], []
    for from_headers in (True, False) if overlap else (False,):
        try:
            found.append(_run_elastix(images, masks, kind, iterations, from_headers))
        except RuntimeError as error:
            reasons.append(reason(error))
    if not found:
        raise ValueError(f"affine: elastix found no {kind} alignment ({reasons[0]}); try affine off.")
    measured = [(candidate, *likeness(candidate)) for candidate in (*found, *([still] if overlap else []))]
    most = max(share for _, share, _ in measured)
    best = max((entry for entry in measured if entry[1] >= most / 2), key=lambda entry: entry[2])[0]
    if best is still:
        warn(f"affine: the {kind} stage made the images less alike and is left out.")
    return best


def _run_elastix(
    images: Sequence[tuple[Tensor, Grid]],
    masks: Sequence[Tensor | None],
    kind: str,
    iterations: int,
    from_headers: bool,
) -> Affine:
    """The stages of ``kind`` one after another, started where the headers say or with the two centres together."""
    (moving, moving_grid), (fixed, fixed_grid) = images
    parameters = itk.ParameterObject.New()
    levels = int(np.clip(np.log2(min(max(grid.shape) for _, grid in images) / 16), 1, 4))
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
    method = itk.ElastixRegistrationMethod.New(image_to_itk(fixed, fixed_grid), image_to_itk(moving, moving_grid))
    method.SetParameterObject(parameters)
    set_masks(method, *(None if m is None else mask_to_itk(m, g) for m, (_, g) in zip(masks, images, strict=True)))
    method.SetLogToConsole(False)
    method.SetLogToFile(False)
    method.SetNumberOfThreads(1)  # the order in which samples are added up decides the last digits
    method.UpdateLargestPossibleRegion()
    found = from_itk_transform(method.ConvertToItkTransform(method.GetCombinationTransform()))
    assert isinstance(found, Affine), found
    return found


def set_masks(method: Any, moving: Any, fixed: Any) -> None:
    """Give elastix the masks that there are."""
    if moving is not None:
        method.SetMovingMask(moving)
    if fixed is not None:
        method.SetFixedMask(fixed)


def _register_in_plane(
    moving: Tensor,
    fixed: Tensor,
    kind: str,
    grids: tuple[Grid, Grid],
    iterations: int,
    masks: tuple[Tensor | None, Tensor | None],
) -> Affine:
    """The same for two volumes of one slice each: a 2-D map in the fixed image's plane, then straight to the other."""
    kept = [[axis for axis, size in enumerate(grid.shape) if size > 1] for grid in grids]
    frame = grids[1].affine[:-1, kept[1]] / grids[1].spacing[kept[1]]  # (3, 2), the plane's axes
    planes = []
    for grid, axes in zip(grids, kept, strict=True):
        columns = grid.affine[:-1, axes]
        directions = columns / np.linalg.norm(columns, axis=0)
        parallel = np.allclose(frame @ (frame.T @ directions), directions, atol=1e-3)
        if any(len(both) != 2 for both in kept) or not parallel:
            raise ValueError("affine: a single slice can be aligned with another one in a parallel plane only.")
        flat = np.eye(3)
        flat[:2, :2], flat[:2, 2] = frame.T @ columns, frame.T @ grid.affine[:-1, -1]
        planes.append(Grid(tuple(grid.shape[axis] for axis in axes), flat))
    slices = [
        convert_to_tensor(image, track_meta=False).reshape(1, *plane.shape)
        for image, plane in zip((moving, fixed), planes, strict=True)
    ]
    flat_masks: list[Tensor | None] = [None, None]
    for i, mask in enumerate(masks):
        if mask is not None:
            values = resample(mask, grids[i], mode="nearest")[0].reshape(1, *planes[i].shape)
            flat_masks[i] = MetaTensor(values, affine=torch.from_numpy(planes[i].affine))
    flat = register_affine(
        slices[0], slices[1], kind, planes[0], planes[1], iterations, flat_masks[0], flat_masks[1]
    ).matrix
    matrix = np.eye(4)
    matrix[:-1, :-1] += frame @ (flat[:-1, :-1] - np.eye(2)) @ frame.T
    normal = np.cross(frame[:, 0], frame[:, 1])
    apart = normal @ (grids[0].affine[:-1, -1] - grids[1].affine[:-1, -1])
    matrix[:-1, -1] = frame @ flat[:-1, -1] + apart * normal
    return Affine(matrix)


def image_to_itk(image: Tensor, grid: Grid) -> Any:
    """A channel-first image ``(1, *grid.shape)`` as ITK image of floats on ``grid``.

    Raises:
        ValueError: when the grid's axes are not at right angles, which an ITK image can't express.
    """
    values = convert_to_tensor(image, dtype=torch.float32, track_meta=False).cpu().numpy()[0]
    stored = itk.image_from_array(np.ascontiguousarray(values.T))
    set_geometry(stored, grid)
    return stored


def mask_to_itk(mask: Tensor, grid: Grid) -> Any:
    """A mask ``(1, *grid.shape)`` as ITK image of 0 and 1 on ``grid``."""
    stored = itk.image_from_array(np.ascontiguousarray((mask[0] > 0).cpu().numpy().astype(np.uint8).T))
    set_geometry(stored, grid)
    return stored


def _mutual_information(image: Tensor, fixed: Tensor) -> float:
    pair = [convert_to_tensor(tensor, dtype=torch.float32, track_meta=False)[None] for tensor in (image, fixed)]
    return float(torch.as_tensor(NMIMetric(bins=32)(*pair)))
