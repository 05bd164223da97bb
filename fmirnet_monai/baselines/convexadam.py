"""Discrete search and Adam on self-similarity contexts, by ConvexAdam."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import nibabel
import numpy as np
import torch
from monai.utils import optional_import
from torch import Tensor

from fmirnet_monai.spatial import Grid

from .base import ClassicalRegistrar, Masks, require


@dataclass(kw_only=True)
class ConvexAdamRegistrar(ClassicalRegistrar):
    """Coupled convex search over a cube of displacements, then Adam; volumes only.

    Siebert, Hansen, Heinrich, "ConvexAdam: Self-configuring dual-optimisation-based 3D multitask medical image
    registration", IEEE TMI 2024. The same input gives the same numbers.

    Args:
        grid_spacing: of the grid that is searched, in voxels.
        reach: longest displacement of the search along an axis, in grid spacings.
        smoothness: weight of the diffusion regularisation in Adam; 0 leaves Adam out.
        iterations: of Adam.
        adam_spacing: of the grid that Adam moves, in voxels.

    Raises:
        ImportError: when convexadam is not installed.
        ValueError: when a setting is out of its range.
    """

    GRID: ClassVar[dict[str, list[Any]]] = {"grid_spacing": [3, 4, 6], "reach": [4, 6], "smoothness": [0.75, 1.25, 2.5]}
    smallest: ClassVar[int] = 12

    grid_spacing: int = 6
    reach: int = 4
    smoothness: float = 1.25
    iterations: int = 80
    adam_spacing: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not optional_import("convexAdam")[1]:
            raise ImportError(f"{self.name} needs ConvexAdam: pip install 'fmirnet_monai[convexadam]'.")
        require(self.grid_spacing >= 1, "grid_spacing", "at least 1 voxel", self.grid_spacing)
        require(self.reach >= 1, "reach", "at least 1", self.reach)
        require(self.smoothness >= 0, "smoothness", "at least 0", self.smoothness)
        require(self.iterations >= 0, "iterations", "at least 0", self.iterations)
        require(self.adam_spacing >= 1, "adam_spacing", "at least 1 voxel", self.adam_spacing)

    def check(self, grid: Grid) -> None:
        """Raise ValueError for anything but a volume of some voxels along each axis."""
        super().check(grid)
        if min(grid.shape) == 1 or grid.dims == 2:
            raise ValueError(f"{self.name} registers volumes, this image has the shape {grid.shape}.")

    def displacement(self, moving: Tensor, fixed: Tensor, grid: Grid, masks: Masks) -> Tensor:
        """Run ConvexAdam on the voxels; it takes masks as files, both or none.

        It fails on masked volumes with sides that are odd or no multiple of its grids' spacings: these are padded.
        """
        run, _ = optional_import("convexAdam.convex_adam_MIND", name="convex_adam_pt")
        multiple = math.lcm(2, self.grid_spacing, self.adam_spacing)
        beyond = [(0, -size % multiple) for size in grid.shape]
        images = [np.pad(image[0].numpy(), beyond, mode="edge") for image in (fixed, moving)]
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            masked: dict[str, Any] = {}
            if any(mask is not None for mask in masks):
                masked["use_mask"] = True
                for name, mask in zip(("moving", "fixed"), masks, strict=True):
                    values = np.pad(np.ones(grid.shape) if mask is None else mask[0].numpy(), beyond)
                    file = Path(folder) / f"{name}.nii.gz"
                    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), file)
                    masked[f"path_{name}_mask"] = file
            vectors = run(
                torch.from_numpy(images[0]),
                torch.from_numpy(images[1]),
                lambda_weight=self.smoothness,
                grid_sp=self.grid_spacing,
                disp_hw=self.reach,
                selected_niter=self.iterations,
                grid_sp_adam=self.adam_spacing,
                dtype=torch.float32,
                device=torch.device("cpu"),
                **masked,
            )
        inner = tuple(slice(size) for size in grid.shape)
        return torch.from_numpy(np.moveaxis(vectors[inner], -1, 0).copy())
