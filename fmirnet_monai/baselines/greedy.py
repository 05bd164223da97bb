"""Greedy diffeomorphic registration, by PICSL's greedy."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from monai.utils import optional_import
from torch import Tensor

from fmirnet_monai.spatial import Grid

from .base import ClassicalRegistrar, Masks, require, require_iterations

METRICS = ("NCC", "SSD")


@dataclass(kw_only=True)
class GreedyRegistrar(ClassicalRegistrar):
    """Composed updates along the gradient of local correlation, both the update and the warp smoothed at each step.

    Yushkevich et al., "Fast automatic segmentation of hippocampal subfields and medial temporal lobe subregions in 3
    Tesla and 7 Tesla T2-weighted MRI", Alzheimer's & Dementia 2016. The same input gives the same numbers.

    Args:
        metric: ``"NCC"`` (local correlation) or ``"SSD"``.
        radius: of the window of ``"NCC"``, in voxels.
        iterations: per level, coarse to fine; each finer level has twice the resolution.
        update_sigma: smoothing of each update, the Gaussian's standard deviation in voxels of the level.
        field_sigma: the same for the whole field.

    Raises:
        ImportError: when picsl-greedy is not installed.
        ValueError: when a setting is out of its range.
    """

    GRID: ClassVar[dict[str, list[Any]]] = {
        "metric": list(METRICS),
        "radius": [2, 4],
        "update_sigma": [1.7, 3.0],
        "field_sigma": [0.5, 0.7, 1.0],
    }

    metric: str = "NCC"
    radius: int = 2
    iterations: tuple[int, ...] = (100, 80, 50)
    update_sigma: float = 1.7
    field_sigma: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not optional_import("picsl_greedy")[1]:
            raise ImportError(f"{self.name} needs greedy: pip install 'fmirnet_monai[greedy]'.")
        require(self.metric in METRICS, "metric", f"one of {METRICS}", self.metric)
        require(self.radius >= 1, "radius", "at least 1 voxel", self.radius)
        require_iterations(self.iterations)
        require(self.update_sigma >= 0, "update_sigma", "at least 0", self.update_sigma)
        require(self.field_sigma >= 0, "field_sigma", "at least 0", self.field_sigma)

    def displacement(self, moving: Tensor, fixed: Tensor, grid: Grid, masks: Masks) -> Tensor:
        """Run greedy and read the field that it gives, in mm along the image's axes."""
        sitk, _ = optional_import("SimpleITK")  # greedy brings it and takes its images
        greedy, _ = optional_import("picsl_greedy")

        def stored(image: Tensor) -> Any:
            result = sitk.GetImageFromArray(image[0].float().numpy().T)
            result.SetSpacing(grid.spacing.tolist())
            return result

        images = {"fixed": stored(fixed), "moving": stored(moving), "warp": None}
        window = "x".join([str(self.radius)] * grid.dims)
        words = [
            f"-V 0 -threads 1 -seed 1 -d {grid.dims} -i fixed moving -o warp -wp 0",  # threads add up in any order
            f"-m NCC {window}" if self.metric == "NCC" else "-m SSD",
            f"-n {'x'.join(map(str, self.iterations))} -s {self.update_sigma}vox {self.field_sigma}vox",
        ]
        for option, name, mask in zip(("-mm", "-gm"), ("moving_mask", "fixed_mask"), masks, strict=True):
            if mask is not None:
                images[name] = stored(mask)
                words.append(f"{option} {name}")
        run = greedy.Greedy2D() if grid.dims == 2 else greedy.Greedy3D()
        printed = io.StringIO()
        run.execute(" ".join(words), out=printed, err=printed, **images)
        vectors = sitk.GetArrayFromImage(run["warp"]).astype(np.float64)  # (*spatial reversed, D)
        axes = [*range(grid.dims)[::-1], grid.dims]
        return torch.from_numpy(np.moveaxis(vectors.transpose(axes) / grid.spacing, -1, 0).copy())
