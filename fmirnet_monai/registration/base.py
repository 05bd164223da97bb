"""What all methods have in common: from two images of any geometry to a map, warped data and figures."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRangePercentiles
from monai.utils import convert_to_tensor
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fmirnet_monai.spatial import DisplacementField, Grid

from .affine import register_affine
from .measure import field_metrics, map_metrics
from .result import Registration

AFFINE = ("off", "translation", "rigid", "affine")
Intensity = Callable[[Tensor], Any]


def percentiles() -> Intensity:
    """Each image's 0.5th to 99.5th percentile to [0, 1], for images without absolute intensities."""
    return ScaleIntensityRangePercentiles(0.5, 99.5, 0.0, 1.0, clip=True)


@dataclass(kw_only=True)
class PairRegistrar(ABC):
    """A method of registration, learned or not; a subclass has :py:meth:`deform` and a name.

    Args:
        intensity: maps an image to [0, 1]; by default each image's own percentiles.
        affine: ``"off"``, ``"translation"``, ``"rigid"`` or ``"affine"`` before it, in world space (elastix).
        name: of the method, for reports.
        settings: further entries of the result's settings.

    Raises:
        ValueError: when an option is out of its range.
    """

    intensity: Intensity = field(default_factory=percentiles)
    affine: str = "off"
    name: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.affine not in AFFINE:
            raise ValueError(f"affine must be one of {AFFINE}, got {self.affine!r}.")

    @abstractmethod
    def deform(self, pair: Tensor, grid: Grid, timings: dict[str, float]) -> DisplacementField:
        """The deformable map between two images that lie on one grid.

        Args:
            pair: ``(2, *grid.shape)``, the moving image first, after the affine stage, intensities in [0, 1].
            grid: of both images, and of the result.
            timings: gets the seconds of each stage.
        """

    def check(self, grid: Grid) -> None:  # noqa: B027 - most methods take any
        """Raise ValueError when the method can't register images on ``grid``."""

    def describe(self, grid: Grid) -> dict[str, Any]:
        """What was chosen for a fixed image on ``grid``, for reports."""
        return {}

    def register(
        self,
        moving: Tensor,
        fixed: Tensor,
        moving_label: MetaTensor | None = None,
        fixed_label: MetaTensor | None = None,
        moving_points: ArrayLike | None = None,
        fixed_points: ArrayLike | None = None,
    ) -> Registration:
        """Register a pair.

        Args:
            moving: ``(1, *spatial)``, any size; a MetaTensor knows its place, a plain tensor has voxels of 1 mm.
            fixed: the same, on its own grid.
            moving_label: integers ``(1, *spatial)``, on any grid in the moving image's space.
            fixed_label: integers, on any grid in the fixed image's space.
            moving_points: ``(N, D)`` in RAS+ mm, in the moving image's space.
            fixed_points: ``(N, D)`` in RAS+ mm; with ``moving_points`` in the same order they give the TRE.

        Raises:
            ValueError: when the images have different numbers of axes, are no single-channel images of the method's
                dimension, or have no overlap and there is no affine stage to bring them together.
        """
        moving, fixed = _as_image("moving", moving), _as_image("fixed", fixed)
        moving_label, fixed_label = (
            None if label is None else convert_to_tensor(label, device="cpu", track_meta=True)
            for label in (moving_label, fixed_label)
        )
        moving_grid, fixed_grid = Grid.of(moving), Grid.of(fixed)
        for name, points in (("moving_points", moving_points), ("fixed_points", fixed_points)):
            if points is not None and np.asarray(points).shape[1:] != (fixed_grid.dims,):
                raise ValueError(f"{name} must be (N, {fixed_grid.dims}), got {np.asarray(points).shape}.")
        timings: dict[str, float] = {}
        affine, deformable = self.estimate(moving, fixed, timings)
        with timed(timings, "inverse"):
            back, residual = deformable.invert()
            inverse = DisplacementField.identity(moving_grid).then_affine(np.linalg.inv(affine)).then(back)
        with timed(timings, "warp"):
            whole = deformable.then_affine(affine)
            warped = _on_grid(whole.warp(moving, moving_grid), fixed_grid)
            warped_label = None
            if moving_label is not None:
                warped_label = _on_grid(whole.warp(moving_label, mode="nearest", padding_mode="zeros"), fixed_grid)
            if fixed_label is not None and not Grid.of(fixed_label).matches(fixed_grid):
                still = DisplacementField.identity(fixed_grid)
                fixed_label = _on_grid(still.warp(fixed_label, mode="nearest", padding_mode="zeros"), fixed_grid)
        result = Registration(
            moving,
            fixed,
            warped,
            whole,
            inverse,
            residual,
            affine,
            deformable,
            moving_label,
            fixed_label,
            warped_label,
            None if moving_points is None else np.asarray(moving_points),
            None if fixed_points is None else np.asarray(fixed_points),
            None if moving_points is None else inverse.map_points(moving_points),
            timings=timings,
            settings={
                "method": self.name,
                "affine": self.affine,
                **self.describe(fixed_grid),
                **self.settings,
            },
        )
        data = (moving, fixed, self.intensity, moving_label, fixed_label, result.moving_points, result.fixed_points)
        with timed(timings, "metrics"):
            before = map_metrics(DisplacementField.identity(fixed_grid), *data)
            result.metrics.update({f"before_{name}": value for name, value in before.items()})
            result.metrics.update({**map_metrics(whole, *data), **field_metrics(deformable)})
        return result

    def estimate(
        self, moving: Tensor, fixed: Tensor, timings: dict[str, float] | None = None
    ) -> tuple[NDArray[np.float64], DisplacementField]:
        """The map alone, without its inverse and without metrics; arguments and errors as in :py:meth:`register`.

        Args:
            moving: image to register.
            fixed: image to register it to.
            timings: gets the seconds of each stage.

        Returns:
            the affine stage ``(D + 1, D + 1)`` in RAS+ mm, and the deformable map before it on the fixed image's grid.
        """
        timings = {} if timings is None else timings
        moving, fixed = _as_image("moving", moving), _as_image("fixed", fixed)
        moving_grid, fixed_grid = Grid.of(moving), Grid.of(fixed)
        if moving_grid.dims != fixed_grid.dims:
            raise ValueError(f"moving is {moving_grid.dims}-D and fixed is {fixed_grid.dims}-D; both must be the same.")
        self.check(fixed_grid)
        if self.affine == "off" and not fixed_grid.overlaps(moving_grid):
            files = " and ".join(str(image.meta.get("filename_or_obj", "an image")) for image in (moving, fixed))
            raise ValueError(
                f"moving and fixed have no overlap in space ({files}); check their origins, or set affine to "
                "translation, rigid or affine to bring them together."
            )
        affine = np.eye(fixed_grid.dims + 1)
        if self.affine != "off":
            with timed(timings, "affine"):
                affine = register_affine(moving, fixed, self.affine)
        with timed(timings, "preparation"):
            start = DisplacementField.identity(fixed_grid).then_affine(affine)
            aligned = start.warp(self.intensity(moving), moving_grid)
            pair = torch.cat([aligned, convert_to_tensor(self.intensity(fixed), track_meta=False)])
        return affine, self.deform(pair, fixed_grid, timings)


@contextmanager
def timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Add the seconds of a ``with`` block to ``timings[stage]``."""
    begin = time.perf_counter()
    yield
    timings[stage] = timings.get(stage, 0.0) + time.perf_counter() - begin


def _as_image(name: str, image: Tensor) -> MetaTensor:
    """A float MetaTensor ``(1, *spatial)`` with the affine of its own dimension."""
    if image.dim() not in (3, 4) or image.shape[0] != 1:
        raise ValueError(f"{name} must be (1, *spatial) with 2 or 3 spatial axes, got {list(image.shape)}.")
    if not torch.isfinite(image).all():
        raise ValueError(f"{name} holds NaN or infinite intensities; replace them.")
    if image.min() == image.max():
        raise ValueError(f"{name} is constant, there is nothing to register.")
    return MetaTensor(
        convert_to_tensor(image, dtype=torch.float32, device="cpu", track_meta=False),
        affine=torch.from_numpy(Grid.of(image).affine.copy()),
        meta={k: v for k, v in getattr(image, "meta", {}).items() if k == "filename_or_obj"},
    )


def _on_grid(image: Tensor, grid: Grid) -> MetaTensor:
    return MetaTensor(convert_to_tensor(image, track_meta=False), affine=torch.from_numpy(grid.affine.copy()))
