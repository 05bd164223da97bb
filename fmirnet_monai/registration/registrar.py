"""The Registrar: two images of any size and geometry in, a transform and the warped image out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.losses import LocalNormalizedCrossCorrelationLoss
from monai.transforms import ScaleIntensityRangePercentiles
from monai.utils import convert_to_tensor
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from tqdm import tqdm

from fmirnet_monai.bundle import find_bundle, load_network, read_inference_config
from fmirnet_monai.losses import RegistrationLoss, SSIMLoss
from fmirnet_monai.spatial import DisplacementField, Grid

from .affine import register_affine
from .measure import field_metrics, image_metrics, label_metrics, point_metrics
from .optimise import DenseOptimizer, FieldOptimizer, resize, resize_field
from .result import Registration

AFFINE = ("off", "translation", "rigid", "affine")
Intensity = Callable[[Tensor], Any]


def percentiles() -> Intensity:
    """Each image's 0.5th to 99.5th percentile to [0, 1], for images without absolute intensities."""
    return ScaleIntensityRangePercentiles(0.5, 99.5, 0.0, 1.0, clip=True)


def default_optimizer(spatial_dims: int) -> DenseOptimizer:
    """Dense optimisation of mean squares and a local similarity (SSIM in 2-D, local NCC in 3-D)."""
    local = SSIMLoss() if spatial_dims == 2 else LocalNormalizedCrossCorrelationLoss(3, kernel_size=5)
    similarity = RegistrationLoss({"mse": nn.MSELoss(), "local": local}, weights={"local": 0.1})
    return DenseOptimizer(similarity.dissimilarity)


@dataclass
class Registrar:
    """Registers pairs by a trained network, refined or not, or by direct optimisation where there is no network.

    Args:
        network: takes ``(B, 2, *spatial)``, moving image first, and gives the field; None optimises directly.
        optimizer: refines the network's field, or registers by itself; None leaves the prediction as it is.
        spatial_dims: 2 or 3, of the network or of the optimisation. Volumes are registered slice by slice when it
            is 2, along the axis with the largest spacing.
        spatial_size: longest side of the working grid, in voxels of equal size.
        intensity: maps an image to [0, 1]; by default each image's own percentiles.
        affine: ``"off"``, ``"translation"``, ``"rigid"`` or ``"affine"`` before it, in world space (elastix).
        device: of network and optimisation.
        name: of the method, for reports.
        progress: show a bar while slices are registered.

    Raises:
        ValueError: when an option is out of its range.
    """

    network: nn.Module | None = None
    optimizer: FieldOptimizer | None = None
    spatial_dims: int = 3
    spatial_size: int = 128
    intensity: Intensity = field(default_factory=percentiles)
    affine: str = "off"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    name: str = "optimisation"
    progress: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.affine not in AFFINE:
            raise ValueError(f"affine must be one of {AFFINE}, got {self.affine!r}.")
        if self.spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {self.spatial_dims}.")
        if self.spatial_size < 16:
            raise ValueError(f"spatial_size must be at least 16 voxels, got {self.spatial_size}.")
        if self.network is None and self.optimizer is None:
            self.optimizer = default_optimizer(self.spatial_dims)
        if self.network is not None:
            self.network = self.network.to(self.device).eval()

    @classmethod
    def from_bundle(cls, bundle: str | Path, refine: int = 0, **options: Any) -> Registrar:
        """A bundle's network with the preparation that its ``configs/inference.json`` describes.

        Args:
            bundle: folder of a bundle, or the name of one in ``bundles``.
            refine: at most so many steps of refinement per pair, 0 for none.
            options: of the constructor, in place of the bundle's.
        """
        folder = find_bundle(bundle)
        network = load_network(folder)
        config = read_inference_config(folder)
        size = config.get_parsed_content("spatial_size")
        prepared: dict[str, Any] = {
            "spatial_dims": len(size),
            "spatial_size": max(size),
            "intensity": config.get_parsed_content("intensity"),
            "name": folder.name,
        }
        if refine:
            prepared["optimizer"] = config.get_parsed_content("refinement")
            prepared["optimizer"].iterations = (refine,)
        return cls(network, **{**prepared, **options})

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
        moving_grid, fixed_grid = Grid.of(moving), Grid.of(fixed)
        for name, points in (("moving_points", moving_points), ("fixed_points", fixed_points)):
            if points is not None and np.asarray(points).shape[1:] != (fixed_grid.dims,):
                raise ValueError(f"{name} must be (N, {fixed_grid.dims}), got {np.asarray(points).shape}.")
        timings: dict[str, float] = {}
        affine, deformable = self.estimate(moving, fixed, timings)
        with _timed(timings, "inverse"):
            back, residual = deformable.invert()
            inverse = DisplacementField.identity(moving_grid).then_affine(np.linalg.inv(affine)).then(back)
        with _timed(timings, "warp"):
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
                "refinement steps": max(self.optimizer.iterations) if self.network and self.optimizer else 0,
                "slice by slice": self.spatial_dims < fixed_grid.dims,
                "working grid": self._working_size(fixed_grid),
                "device": str(self.device),
                **self.settings,
            },
        )
        with _timed(timings, "metrics"):
            result.metrics.update(self._measure(result))
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
        if self.spatial_dims > fixed_grid.dims:
            raise ValueError(f"{self.name} registers volumes, these images are 2-D; choose a 2-D method.")
        if self.affine == "off" and not fixed_grid.overlaps(moving_grid):
            files = " and ".join(str(image.meta.get("filename_or_obj", "an image")) for image in (moving, fixed))
            raise ValueError(
                f"moving and fixed have no overlap in space ({files}); check their origins, or set affine to "
                "translation, rigid or affine to bring them together."
            )
        affine = np.eye(fixed_grid.dims + 1)
        if self.affine != "off":
            with _timed(timings, "affine"):
                affine = register_affine(moving, fixed, self.affine)
        with _timed(timings, "preparation"):
            start = DisplacementField.identity(fixed_grid).then_affine(affine)
            aligned = start.warp(self.intensity(moving), moving_grid)
            pair = torch.cat([aligned, convert_to_tensor(self.intensity(fixed), track_meta=False)])
        return affine, self._deform(pair, fixed_grid, timings)

    def _slice_axis(self, grid: Grid) -> int | None:
        """Axis along which a volume is cut into slices, None where image and method have one dimension."""
        if self.spatial_dims == grid.dims:
            return None
        single = [axis for axis, size in enumerate(grid.shape) if size == 1]
        return single[0] if single else 2 - int(np.argmax(grid.spacing[::-1].round(3)))

    def _working_size(self, grid: Grid) -> list[int]:
        axis = self._slice_axis(grid)
        kept = [i for i in range(grid.dims) if i != axis]
        extent = [grid.shape[i] * grid.spacing[i] for i in kept]
        voxel = max(extent) / self.spatial_size
        if self.network is None:  # a network wants the size that it was trained on, an optimiser gains nothing from it
            return [min(grid.shape[i], max(16, round(e / voxel))) for i, e in zip(kept, extent, strict=True)]
        return [max(2, round(e / voxel)) for e in extent]

    def _deform(self, pair: Tensor, grid: Grid, timings: dict[str, float]) -> DisplacementField:
        """The deformable map of ``(2, *grid.shape)``, moving image first, on the fixed grid."""
        axis = self._slice_axis(grid)
        full = [n for i, n in enumerate(grid.shape) if i != axis]
        size = self._working_size(grid)
        batch = pair[None] if axis is None else pair.movedim(axis + 1, 0)
        fields = []
        items = tqdm(batch.split(1), desc="slices", unit="slice", disable=not self.progress or len(batch) == 1)
        for item in items:
            working = resize(item.float().to(self.device), size)
            ddf = working.new_zeros(1, len(size), *size)
            if self.network is not None:
                with _timed(timings, "network"), torch.no_grad():
                    ddf = self.network(working)
            if self.optimizer is not None:
                with _timed(timings, "optimisation"):
                    ddf = self.optimizer(working[:, :1], working[:, 1:], ddf)
            fields.append(resize_field(ddf, full).cpu())
        return DisplacementField(_stack(fields, axis), grid)

    def _measure(self, result: Registration) -> dict[str, float]:
        fixed = self.intensity(result.fixed)
        metrics: dict[str, float] = {}
        for prefix, mapped in (("before_", DisplacementField.identity(Grid.of(result.fixed))), ("", result.field)):
            values = image_metrics(self.intensity(mapped.warp(result.moving)), fixed)
            if result.moving_label is not None and result.fixed_label is not None:
                label = mapped.warp(result.moving_label, mode="nearest", padding_mode="zeros")
                values |= label_metrics(label, result.fixed_label)
            if result.moving_points is not None and result.fixed_points is not None:
                values |= point_metrics(mapped.map_points(result.fixed_points), result.moving_points)
            metrics |= {prefix + name: value for name, value in values.items()}
        return {**metrics, **field_metrics(result.deformable)}


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
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
        convert_to_tensor(image, dtype=torch.float32, track_meta=False),
        affine=torch.from_numpy(Grid.of(image).affine.copy()),
        meta={k: v for k, v in getattr(image, "meta", {}).items() if k == "filename_or_obj"},
    )


def _on_grid(image: Tensor, grid: Grid) -> MetaTensor:
    return MetaTensor(convert_to_tensor(image, track_meta=False), affine=torch.from_numpy(grid.affine.copy()))


def _stack(fields: list[Tensor], axis: int | None) -> Tensor:
    """One field ``(D, *spatial)`` from that of each slice, which nothing displaces along ``axis``."""
    if axis is None:
        return fields[0][0]
    stacked = torch.stack([f[0] for f in fields], dim=axis + 1)
    zeros = torch.zeros_like(stacked[:1])
    return torch.cat([stacked[:axis], zeros, stacked[axis:]])
