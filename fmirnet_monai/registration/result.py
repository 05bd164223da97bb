"""What a registration gives, whatever method made it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from fmirnet_monai.spatial import DisplacementField


@dataclass(frozen=True, eq=False)
class Registration:
    """A registered pair: images ``(1, *spatial)`` in their own intensities, points ``(N, D)`` in RAS+ mm.

    Attributes:
        moving: the moving image on its own grid.
        fixed: the fixed image on its own grid.
        warped: the moving image on the fixed image's grid, resampled once through ``field``.
        field: the whole map, affine stage included, from the fixed image's space to the moving image's.
        inverse: the whole map back, on the moving image's grid.
        inverse_residual: the largest distance in voxels of the fixed grid by which inverting missed.
        affine: ``(D + 1, D + 1)`` matrix of the affine stage, fixed to moving space in RAS+ mm; identity without one.
        deformable: the map without the affine stage, on the fixed grid: ``field`` is ``affine`` after it.
        moving_label: label of the moving image, where given.
        fixed_label: label of the fixed image, where given, on the fixed image's grid.
        warped_label: the moving label on the fixed image's grid.
        moving_points: points of the moving image, where given.
        fixed_points: points of the fixed image, where given.
        warped_points: the moving points, taken to the fixed image's space.
        metrics: name to value after registration; those of the unregistered pair are named ``before_…``. Distances in
            mm, folding in percent.
        timings: seconds per stage.
        settings: everything that was chosen, by the user or by default.
    """

    moving: MetaTensor
    fixed: MetaTensor
    warped: MetaTensor
    field: DisplacementField
    inverse: DisplacementField
    inverse_residual: float
    affine: NDArray[np.float64]
    deformable: DisplacementField
    moving_label: MetaTensor | None = None
    fixed_label: MetaTensor | None = None
    warped_label: MetaTensor | None = None
    moving_points: NDArray[np.float64] | None = None
    fixed_points: NDArray[np.float64] | None = None
    warped_points: NDArray[np.float64] | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    timings: dict[str, float] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
