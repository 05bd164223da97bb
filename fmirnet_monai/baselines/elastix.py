"""B-splines, by elastix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import itk
import numpy as np
from torch import Tensor

from fmirnet_monai.spatial import DisplacementField, Grid
from fmirnet_monai.spatial.itk import from_itk_transform

from .base import ClassicalRegistrar, Masks, require, shrink_factors
from .itk_images import image_to_itk, mask_to_itk

METRICS = ("AdvancedMeanSquares", "AdvancedNormalizedCorrelation", "AdvancedMattesMutualInformation")


@dataclass(kw_only=True)
class ElastixRegistrar(ClassicalRegistrar):
    """Cubic B-splines, fitted by adaptive stochastic gradient descent, coarse to fine.

    Rueckert et al., "Nonrigid registration using free-form deformations", IEEE TMI 1999; Klein et al., "elastix",
    IEEE TMI 2010. Runs in one thread with a fixed seed: the same input gives the same numbers.

    Args:
        metric: ``"AdvancedMeanSquares"``, ``"AdvancedNormalizedCorrelation"`` or
            ``"AdvancedMattesMutualInformation"``.
        grid_spacing: of the control points at the finest level, in voxels of the axis with the smallest ones; the same
            in mm along all axes, but nowhere closer than the voxels.
        iterations: of each level.
        levels: of the image pyramid and of the control grid, which doubles its spacing from level to level.
        bending_weight: of the bending energy beside the metric, 0 leaves it out.
        samples: random positions at which the metric is evaluated, new ones each iteration; 0 takes every voxel.
        seed: of the samples.

    Raises:
        ImportError: when itk-elastix is not installed.
        ValueError: when a setting is out of its range.
    """

    GRID: ClassVar[dict[str, list[Any]]] = {
        "metric": ["AdvancedMeanSquares", "AdvancedNormalizedCorrelation"],
        "grid_spacing": [4.0, 6.0, 8.0, 12.0],
        "bending_weight": [0.0, 0.1, 1.0, 10.0],
    }

    name: str = "elastix"
    metric: str = "AdvancedMeanSquares"
    grid_spacing: float = 8.0
    iterations: int = 256
    levels: int = 3
    bending_weight: float = 0.1
    samples: int = 2048
    seed: int = 121212

    def __post_init__(self) -> None:
        super().__post_init__()
        if not hasattr(itk, "ElastixRegistrationMethod"):
            raise ImportError(f"{self.name} needs elastix: pip install 'fmirnet_monai[elastix]'.")
        require(self.metric in METRICS, "metric", f"one of {METRICS}", self.metric)
        require(self.grid_spacing >= 1, "grid_spacing", "at least 1 voxel", self.grid_spacing)
        require(self.iterations >= 1, "iterations", "at least 1", self.iterations)
        require(self.levels >= 1, "levels", "at least 1", self.levels)
        require(self.bending_weight >= 0, "bending_weight", "at least 0", self.bending_weight)
        require(self.samples >= 0, "samples", "at least 0 (every voxel)", self.samples)

    def displacement(self, moving: Tensor, fixed: Tensor, grid: Grid, masks: Masks) -> Tensor:
        """Run elastix and sample its transform."""
        method = itk.ElastixRegistrationMethod.New(image_to_itk(fixed, grid), image_to_itk(moving, grid))
        parameters = itk.ParameterObject.New()
        parameters.AddParameterMap(self._parameters(grid))
        method.SetParameterObject(parameters)
        for mask, give in zip(masks, (method.SetMovingMask, method.SetFixedMask), strict=True):
            if mask is not None:
                give(mask_to_itk(mask, grid))
        method.SetLogToConsole(False)
        method.SetLogToFile(False)
        method.SetNumberOfThreads(1)  # the order in which samples are added up decides the last digits
        method.UpdateLargestPossibleRegion()
        found = from_itk_transform(method.ConvertToItkTransform(method.GetCombinationTransform()))
        return DisplacementField.of(found, grid)[0].ddf

    def _parameters(self, grid: Grid) -> dict[str, tuple[str, ...]]:
        knots = np.maximum(self.grid_spacing, grid.spacing)
        schedule = [factor for level in shrink_factors(grid, self.levels) for factor in level]
        settings = dict(itk.ParameterObject.New().GetDefaultParameterMap("bspline", self.levels))
        settings |= {
            "Metric": (self.metric,),
            "Registration": ("MultiResolutionRegistration",),
            "FinalGridSpacingInPhysicalUnits": tuple(str(mm) for mm in knots),
            "GridSpacingSchedule": tuple(str(2**level) for level in range(self.levels)[::-1]),
            "ImagePyramidSchedule": tuple(str(factor) for factor in schedule),
            "MaximumNumberOfIterations": (str(self.iterations),),
            "ImageSampler": ("RandomCoordinate" if self.samples else "Full",),
            "NumberOfSpatialSamples": (str(self.samples),),
            "NewSamplesEveryIteration": ("true" if self.samples else "false",),
            "RandomSeed": (str(self.seed),),
            "WriteResultImage": ("false",),
        }
        if self.bending_weight:
            settings |= {
                "Registration": ("MultiMetricMultiResolutionRegistration",),
                "Metric": (self.metric, "TransformBendingEnergyPenalty"),
                "Metric0Weight": ("1",),
                "Metric1Weight": (str(self.bending_weight),),
            }
        return settings
