"""What a registration gives, whatever method made it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmirnet_monai.losses import MULTIMODAL
from fmirnet_monai.spatial import Affine, DisplacementField, Grid, Map, chain, resample
from fmirnet_monai.spatial.grid import precise
from fmirnet_monai.spatial.image import on_grid
from fmirnet_monai.spatial.roundtrip import Inversion, invert
from fmirnet_monai.utils import GUIDED

from .evidence import Checks
from .intensity import Intensity, seen_intensities
from .measure import field_metrics, image_metrics, label_metrics, point_metrics, volume_metrics
from .verdict import Verdict, judge

RESIDUAL = 1.0  # voxels, by which an inverse may miss before it is told


@dataclass(eq=False)
class Registration:
    """A registered pair. What follows from the map is made when it is asked for, and kept, on the device of the images.

    Images are ``(1, *spatial)`` in their own intensities, points ``(N, D)`` in RAS+ mm.

    Attributes:
        moving: the moving image on its own grid.
        fixed: the fixed image on its own grid.
        affine: of the affine stage, fixed to moving space; the identity without one.
        deformable: the map before the affine stage, on the fixed grid.
        intensity: maps an image to [0, 1], for the metrics.
        moving_label: label of the moving image, where given.
        fixed_label: label of the fixed image, where given, on the fixed image's grid.
        moving_mask: where the moving image counts, 0 elsewhere, on any grid; everywhere where not given.
        fixed_mask: the same of the fixed image.
        moving_points: points of the moving image, where given.
        fixed_points: points of the fixed image, where given.
        fill: value of ``warped`` beyond the moving image; by default the moving image's smallest.
        antialias: smooth the moving image before warping where the fixed image is coarser.
        timings: seconds per stage, of those that were asked for.
        guided: names of the metrics, ``dice`` for those of single labels too, of what guided the registration.
        notes: what is to be told of what guided it, and of its inverse where that was made, a sentence each.
        checks: what tells without labels whether the map holds, as far as it was measured.
        settings: everything that was chosen, by the user or by default.
    """

    moving: Tensor
    fixed: Tensor
    affine: Affine
    deformable: DisplacementField
    intensity: Intensity
    moving_label: Tensor | None = None
    fixed_label: Tensor | None = None
    moving_mask: Tensor | None = None
    fixed_mask: Tensor | None = None
    moving_points: NDArray[np.float64] | None = None
    fixed_points: NDArray[np.float64] | None = None
    fill: float | None = None
    antialias: bool = False
    timings: dict[str, float] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    guided: Sequence[str] = ()
    notes: list[str] = dataclasses.field(default_factory=list)
    checks: Checks = dataclasses.field(default_factory=Checks)

    @property
    def fixed_grid(self) -> Grid:
        """Grid of the fixed image."""
        return self.deformable.grid

    @cached_property
    def map(self) -> Map:
        """The whole map, affine stage included, from the fixed image's space to the moving image's."""
        return chain((self.deformable, self.affine))

    @cached_property
    def field(self) -> DisplacementField:
        """The whole map as a displacement field on the fixed grid."""
        return DisplacementField.of(self.map, self.fixed_grid)[0]

    @cached_property
    def inversion(self) -> Inversion:
        """The whole map back, on the moving image's grid, and how well it went."""
        with timed(self.timings, "inverse"):
            found = invert(self.map, Grid.of(self.moving), self.moving.device)
        if not found.residual <= RESIDUAL:
            self.notes.append(f"the inverse misses by up to {found.residual:.2f} voxels, more than {RESIDUAL:g}.")
        return found

    @property
    def inverse(self) -> DisplacementField:
        """The whole map back, on the moving image's grid."""
        return self.inversion.field

    @cached_property
    def _warped(self) -> tuple[Tensor, Tensor]:
        with timed(self.timings, "warp"):
            values, inside = resample(self.moving, self.fixed_grid, self.map, fill=self.fill, antialias=self.antialias)
            return on_grid(values, self.fixed_grid, self.moving), inside

    @property
    def warped(self) -> Tensor:
        """The moving image on the fixed image's grid, resampled once; a MetaTensor where that is one."""
        return self._warped[0]

    @property
    def inside(self) -> Tensor:
        """Where the map leads into the moving image, ``(*spatial)`` of the fixed grid: what is seen of it there."""
        return self._warped[1]

    @cached_property
    def unregistered(self) -> tuple[Tensor, Tensor]:
        """The moving image on the fixed image's grid as the headers place it, and where it is seen."""
        return resample(self.moving, self.fixed_grid, fill=self.fill, antialias=self.antialias)

    @cached_property
    def warped_label(self) -> Tensor | None:
        """The moving label on the fixed image's grid, where given."""
        if self.moving_label is None:
            return None
        with timed(self.timings, "warp"):
            values, _ = resample(self.moving_label, self.fixed_grid, self.map, mode="nearest")
            return on_grid(values, self.fixed_grid, self.moving_label)

    @cached_property
    def warped_points(self) -> NDArray[np.float64] | None:
        """The moving points, taken to the fixed image's space, where given."""
        return None if self.moving_points is None else map_points(self.map.inverse(), self.moving_points)

    @cached_property
    def determinant(self) -> Tensor:
        """Jacobian determinant of the deformable map, ``(*spatial)``."""
        return self.deformable.jacobian_determinant()

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Name to value after registration; those of the unregistered pair are named ``before_…``.

        Similarity is that of what both images show, inside their masks; ``inside`` says how much of the fixed image (or
        its mask) that is, in percent. Distances are in mm, folding in percent. What guided the registration measures
        how closely it was followed, and nothing else: its metrics are named ``guided_…``.
        """
        with timed(self.timings, "metrics"):
            before = self._measure(Affine.identity(self.fixed_grid.dims), *self.unregistered)
        before = {f"before_{name}": value for name, value in before.items()}
        return {**before, **self.after, **volume_metrics(self.determinant), **self.checks.figures}

    @property
    def volumes(self) -> bool:
        """Whether volumes were registered, not 2-D images or slices one by one."""
        return min(self.fixed_grid.shape) > 1 and self.fixed_grid.dims == 3 and not self.settings.get("slice_by_slice")

    @cached_property
    def verdict(self) -> Verdict:
        """Whether it holds, by its metrics."""
        return judge(self.metrics, self.volumes, self.settings.get("similarity") in MULTIMODAL)

    @cached_property
    def after(self) -> dict[str, float]:
        """The metrics after registration alone."""
        warped, _ = self._warped, self.warped_label  # timed by themselves
        with timed(self.timings, "metrics"):
            found = {**self._measure(self.map, *warped), **field_metrics(self.deformable, self.determinant)}
            return {f"{GUIDED}{name}" if self._guides(name) else name: value for name, value in found.items()}

    def _guides(self, metric: str) -> bool:
        return metric in self.guided or (metric.startswith("dice_") and "dice" in self.guided)

    @cached_property
    def seen(self) -> tuple[Tensor, Tensor]:
        """The warped image ``(1, *spatial)`` in [0, 1], and where its similarity counts, ``(*spatial)``."""
        region = self._region(self.map, self.inside)
        return seen_intensities(self.intensity, self.warped, region), region

    def _region(self, through: Map, inside: Tensor) -> Tensor:
        """Where the similarity of the images counts: inside the moving image and both masks, ``(*spatial)``."""
        region = inside & self._counted
        if self.moving_mask is not None:
            region &= resample(self.moving_mask, self.fixed_grid, through, mode="nearest")[0][0] > 0
        return region

    @cached_property
    def _counted(self) -> Tensor:
        """Where the fixed image counts, ``(*spatial)``."""
        if self.fixed_mask is None:
            return torch.ones(self.fixed_grid.shape, dtype=torch.bool, device=self.fixed.device)
        return resample(self.fixed_mask, self.fixed_grid, mode="nearest")[0][0] > 0

    def _measure(self, through: Map, values: Tensor, inside: Tensor) -> dict[str, float]:
        if through is self.map:
            image, region = self.seen
        else:
            region = self._region(through, inside)
            image = seen_intensities(self.intensity, values, region)
        found = image_metrics(image, self.scaled, region)
        found["inside"] = 100.0 * int(region.sum()) / max(1, int(self._counted.sum()))
        if self.moving_label is not None and self.fixed_label is not None:
            label = self.warped_label if through is self.map else None
            if label is None:
                label = on_grid(
                    resample(self.moving_label, self.fixed_grid, through, mode="nearest")[0], self.fixed_grid
                )
            found |= label_metrics(label, self.fixed_label)
        if self.moving_points is not None and self.fixed_points is not None:
            found |= point_metrics(map_points(through, self.fixed_points), self.moving_points)
        return found

    @cached_property
    def scaled(self) -> Tensor:
        """The fixed image in [0, 1], scaled by what its mask leaves."""
        return seen_intensities(self.intensity, self.fixed, self._counted)


def map_points(through: Map, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points ``(N, D)`` in RAS+ mm through a map."""
    like = precise(through.device)
    placed = torch.from_numpy(np.asarray(points, dtype=np.float64)).to(like)
    return through.to(like.device)(placed)[0].cpu().double().numpy()


@contextmanager
def timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Add the seconds of a ``with`` block to ``timings[stage]``, those of a GPU's work included."""
    _wait()
    begin = time.perf_counter()
    yield
    _wait()
    timings[stage] = timings.get(stage, 0.0) + time.perf_counter() - begin


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
