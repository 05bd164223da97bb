"""Symmetric normalisation and time-varying velocity fields, by ANTs."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from monai.utils import optional_import
from torch import Tensor

from fmirnet_monai.spatial import Grid

from .base import ClassicalRegistrar, Masks, require, require_iterations

METRICS = ("meansquares", "CC", "mattes")
BINS = 32


@dataclass(kw_only=True)
class AntsRegistrar(ClassicalRegistrar):
    """What the deformable methods of ANTs have in common.

    Nothing is sampled at random. With ``"meansquares"`` and ``"CC"`` the same input gives the same numbers;
    ``"mattes"`` adds up its histogram thread by thread and needs ``ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1`` in the
    environment, before the process first calls ANTs.

    Args:
        metric: ``"meansquares"``, ``"CC"`` (local correlation) or ``"mattes"`` (mutual information, 32 bins).
        radius: of the window of ``"CC"``, in voxels.
        iterations: at most so many per level, coarse to fine; each finer level has twice the resolution.
        gradient_step: length of the longest update, in voxels of the level.
        flow_sigma: smoothing of each update; despite ANTs' name for it the **variance** of the Gaussian, in voxels².
        total_sigma: the same for the whole field.

    Raises:
        ImportError: when antspyx is not installed.
        ValueError: when a setting is out of its range.
    """

    metric: str = "meansquares"
    radius: int = 4
    iterations: tuple[int, ...] = (100, 100, 50)
    gradient_step: float = 0.2
    flow_sigma: float = 1.5
    total_sigma: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not optional_import("ants")[1]:
            raise ImportError(f"{self.name} needs ANTs: pip install 'fmirnet_monai[ants]'.")
        require(self.metric in METRICS, "metric", f"one of {METRICS}", self.metric)
        require(self.radius >= 1, "radius", "at least 1 voxel", self.radius)
        require_iterations(self.iterations)
        require(self.gradient_step > 0, "gradient_step", "above 0", self.gradient_step)
        require(self.flow_sigma >= 0, "flow_sigma", "at least 0", self.flow_sigma)
        require(self.total_sigma >= 0, "total_sigma", "at least 0", self.total_sigma)

    @property
    @abstractmethod
    def transform(self) -> str:
        """ANTs' name of the type of transform."""

    def displacement(self, moving: Tensor, fixed: Tensor, grid: Grid, masks: Masks) -> Tensor:
        """Run ANTs and read the field that it writes, in mm along the image's axes."""
        ants, _ = optional_import("ants")  # here, not above: it takes seconds and most users of this package need none
        spacing = tuple(grid.spacing.tolist())
        images = [ants.from_numpy(image[0].numpy(), spacing=spacing) for image in (fixed, moving)]
        given = {
            name: ants.from_numpy(mask[0].float().numpy(), spacing=spacing)
            for name, mask in zip(("moving_mask", "mask"), masks, strict=True)
            if mask is not None
        }
        with tempfile.TemporaryDirectory() as folder:
            ants.registration(
                *images,
                type_of_transform=self.transform,
                outprefix=f"{folder}/",
                syn_metric=self.metric,
                syn_sampling=self.radius if self.metric == "CC" else BINS,
                reg_iterations=self.iterations,
                grad_step=self.gradient_step,
                flow_sigma=self.flow_sigma,
                total_sigma=self.total_sigma,
                mask_all_stages=True,
                **given,
            )
            (warp,) = Path(folder).glob("[0-9]Warp.nii.gz")
            vectors = ants.image_read(str(warp)).numpy()
        return torch.from_numpy(np.moveaxis(vectors / grid.spacing, -1, 0).copy())


@dataclass(kw_only=True)
class SynRegistrar(AntsRegistrar):
    """Symmetric normalisation (SyN), without its affine stage.

    Avants et al., "Symmetric diffeomorphic image registration with cross-correlation", Medical Image Analysis 2008.
    Settings and reproducibility: :py:class:`AntsRegistrar`.
    """

    GRID: ClassVar[dict[str, list[Any]]] = {
        "metric": ["meansquares", "CC"],
        "iterations": [(100, 100, 50), (100, 50)],
        "flow_sigma": [1.5, 3.0, 5.0],
    }

    name: str = "SyN"

    @property
    def transform(self) -> str:
        """SyN alone."""
        return "SyNOnly"


@dataclass(kw_only=True)
class TimeVaryingRegistrar(AntsRegistrar):
    """A velocity field that varies in time, integrated to a diffeomorphism, as in LDDMM.

    Beg et al., "Computing large deformation metric mappings via geodesic flows of diffeomorphisms", IJCV 2005; as
    implemented in ITK, Avants et al., "The Insight ToolKit image registration framework", Frontiers in
    Neuroinformatics 2014. An iteration takes about ten times as long as one of SyN. Other settings and
    reproducibility: :py:class:`AntsRegistrar`.

    Args:
        time_points: at which the velocity is kept, 2 to 8.
    """

    GRID: ClassVar[dict[str, list[Any]]] = {
        "gradient_step": [0.5, 1.0],
        "flow_sigma": [1.0, 1.5, 3.0],
    }

    name: str = "LDDMM"
    time_points: int = 4
    iterations: tuple[int, ...] = (60, 40, 10)
    gradient_step: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 <= self.time_points <= 8, "time_points", "2 to 8", self.time_points)

    @property
    def transform(self) -> str:
        """Time-varying velocity field."""
        return f"TV[{self.time_points}]"
