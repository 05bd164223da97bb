"""Demons by ITK, and with local correlation as their force, which ITK lacks, by our own descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import itk
import torch
from torch import Tensor

from fmirnet_monai.losses import LocalNCCLoss
from fmirnet_monai.registration import DenseOptimizer
from fmirnet_monai.registration.level import Level
from fmirnet_monai.spatial import Grid, integrate, smooth
from fmirnet_monai.spatial.files import from_itk

from .base import ClassicalRegistrar, Masks, require, require_iterations, shrink_factors
from .itk_images import image_to_itk

PYRAMID = "MultiResolutionPDEDeformableRegistration"
FILTERS = {
    "plain": "DemonsRegistrationFilter",
    "symmetric": "SymmetricForcesDemonsRegistrationFilter",
    "diffeomorphic": "DiffeomorphicDemonsRegistrationFilter",
}


@dataclass(kw_only=True)
class DemonsRegistrar(ClassicalRegistrar):
    """Demons on an image pyramid; mean squares is their measure, images of another contrast are beyond them.

    Thirion, "Image matching as a diffusion process", Medical Image Analysis 1998; Vercauteren et al., "Diffeomorphic
    demons", NeuroImage 2009. Nothing is random and each voxel is computed by itself: the same input gives the same
    numbers, whatever the number of threads.

    Args:
        variant: ``"plain"``, ``"symmetric"`` (forces of both images) or ``"diffeomorphic"``.
        iterations: per level, coarse to fine; each finer level has twice the resolution.
        field_sigma: standard deviation in voxels of the Gaussian that smooths the field after each iteration.
        update_sigma: the same for each update.

    Raises:
        ValueError: when a setting is out of its range.
    """

    GRID: ClassVar[dict[str, list[Any]]] = {
        "variant": ["plain", "symmetric", "diffeomorphic"],
        "field_sigma": [0.7, 1.0, 1.5, 2.0],
    }

    name: str = "demons"
    variant: str = "diffeomorphic"
    iterations: tuple[int, ...] = (100, 100, 50)
    field_sigma: float = 1.5
    update_sigma: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not hasattr(itk, PYRAMID):
            raise ImportError(f"{self.name} needs ITK's registration: pip install 'fmirnet_monai[demons]'.")
        require(self.variant in FILTERS, "variant", f"one of {tuple(FILTERS)}", self.variant)
        require_iterations(self.iterations)
        require(self.field_sigma >= 0, "field_sigma", "at least 0", self.field_sigma)
        require(self.update_sigma >= 0, "update_sigma", "at least 0", self.update_sigma)

    def displacement(self, moving: Tensor, fixed: Tensor, grid: Grid, masks: Masks) -> Tensor:
        """Run ITK's filter on its pyramid; it knows no masks, but where one is both images show the fixed one."""
        images = image_to_itk(fixed, grid), image_to_itk(moving, grid)
        types = type(images[0]), type(images[0]), itk.Image[itk.Vector[itk.F, grid.dims], grid.dims]
        demons = getattr(itk, FILTERS[self.variant])[types].New()
        demons.SetSmoothDisplacementField(self.field_sigma > 0)
        demons.SetStandardDeviations(self.field_sigma)
        demons.SetSmoothUpdateField(self.update_sigma > 0)
        demons.SetUpdateFieldStandardDeviations(self.update_sigma)
        demons.SetMaximumError(0.01)  # ITK's 0.1 cuts the Gaussians short
        levels = len(self.iterations)
        pyramid = getattr(itk, PYRAMID)[(*types, itk.F)].New()
        pyramid.SetRegistrationFilter(demons)
        pyramid.SetFixedImage(images[0])
        pyramid.SetMovingImage(images[1])
        pyramid.SetNumberOfLevels(levels)
        pyramid.SetNumberOfIterations(list(self.iterations))
        schedule = itk.Array2D[itk.UI]()
        schedule.SetSize(levels, grid.dims)
        for level, factors in enumerate(shrink_factors(grid, levels)):
            for axis, factor in enumerate(factors):
                schedule.SetElement(level, axis, factor)
        for image_pyramid in (pyramid.GetModifiableFixedImagePyramid(), pyramid.GetModifiableMovingImagePyramid()):
            image_pyramid.SetSchedule(schedule)
        pyramid.Update()
        ddf = from_itk(pyramid.GetOutput()).ddf
        # the diffeomorphic filter smooths after each update, the others before it and leave the last one as it is
        return ddf if self.variant == "diffeomorphic" else smooth(ddf[None], self.field_sigma)[0]


class LogDomainOptimizer(DenseOptimizer):
    """What each level adds is the exponential of a stationary velocity, on which the updates add up.

    Vercauteren et al., "Symmetric log-domain diffeomorphic registration", MICCAI 2008, to the first order of the
    Baker-Campbell-Hausdorff formula.
    """

    squarings = 5

    def moved(self, level: Level, start: Tensor, ddf: Tensor, added: Tensor, update: Tensor) -> tuple[Tensor, Tensor]:
        """See :py:meth:`DenseOptimizer.moved`; ``added`` is the velocity."""
        velocity = smooth(added + update, self.field_sigma)
        return level.compose(start, integrate(velocity, self.squarings)), velocity


@dataclass(kw_only=True)
class LCCDemonsRegistrar(ClassicalRegistrar):
    """Log-domain demons driven by local correlation.

    Lorenzi et al., "LCC-Demons: a robust and accurate symmetric diffeomorphic registration algorithm", NeuroImage 2013.
    Theirs takes Gauss-Newton steps on both images' forces; here the gradient of the moving image's is normalised, as in
    :py:class:`DenseOptimizer`. The same input gives the same numbers.

    Args:
        window: odd width in voxels of the windows of local correlation.
        iterations: at most so many per level, coarse to fine; each finer level has twice the resolution.
        step: length of the longest update in voxels of the level.
        update_sigma: standard deviation in voxels of the Gaussian that smooths each update (fluid).
        field_sigma: the same for the velocity after each iteration (elastic).

    Raises:
        ValueError: when a setting is out of its range.
    """

    GRID: ClassVar[dict[str, list[Any]]] = {
        "window": [5, 9],
        "update_sigma": [0.5, 1.0, 2.0],
        "field_sigma": [0.0, 0.35, 0.7, 1.0],
    }

    name: str = "lcc_demons"
    window: int = 5
    iterations: tuple[int, ...] = (60, 60, 40)
    step: float = 0.5
    update_sigma: float = 2.0
    field_sigma: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.window >= 3 and self.window % 2 == 1, "window", "odd and at least 3 voxels", self.window)
        require_iterations(self.iterations)
        require(0 < self.step < 1, "step", "between 0 and 1 voxel", self.step)
        require(self.update_sigma >= 0, "update_sigma", "at least 0", self.update_sigma)
        require(self.field_sigma >= 0, "field_sigma", "at least 0", self.field_sigma)

    def displacement(self, moving: Tensor, fixed: Tensor, grid: Grid, masks: Masks) -> Tensor:
        """Descend on the pyramid."""
        similarity = LocalNCCLoss(self.window)
        optimizer = LogDomainOptimizer(similarity, self.iterations, self.step, self.update_sigma, self.field_sigma)
        valid = [None if mask is None else mask[None].float() for mask in masks]
        with torch.no_grad():
            return optimizer(moving[None], fixed[None], None, valid[0], valid[1], grid.spacing.tolist())[0]
