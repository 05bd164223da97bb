"""What all methods have in common: from two images of any geometry to a map, warped data and figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fmirnet_monai.spatial import Affine, DisplacementField, Grid, Map, extend, resample
from fmirnet_monai.spatial.image import on_grid, plain

from .affine import STAGES, register_affine
from .evidence import Checks
from .guidance import Guidance, Hints, missed
from .guides import Guide
from .intensity import Intensity, Percentiles, seen_intensities
from .orientation import on_extent
from .result import Registration, timed

AFFINE = ("off", *STAGES)
FILE = "filename_or_obj"  # MONAI's name in an image's meta


@dataclass(kw_only=True)
class PairRegistrar(ABC):
    """A method of registration, learned or not; a subclass has :py:meth:`deform` and a name.

    Args:
        intensity: maps an image to [0, 1]; by default each image's own percentiles.
        affine: ``"off"``, ``"translation"``, ``"rigid"`` or ``"affine"`` before it, in world space.
        name: of the method, for reports.
        settings: further entries of the result's settings.
        device: of the registration and of what follows from it.
        fill: value of the warped image beyond the moving one; by default the moving image's smallest.
        antialias: smooth the moving image before it is warped for the result, where the fixed image is coarser. What is
            registered always is.
        guidance: what else than the images guides the registration, and how strongly.

    Raises:
        ValueError: when an option is out of its range.
    """

    intensity: Intensity = field(default_factory=Percentiles)
    affine: str = "off"
    name: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    fill: float | None = None
    antialias: bool = False
    guidance: Guidance = field(default_factory=Guidance)

    def __post_init__(self) -> None:
        if self.affine not in AFFINE:
            raise ValueError(f"affine must be one of {AFFINE}, got {self.affine!r}.")

    @abstractmethod
    def deform(self, pair: Tensor, inside: Tensor, grid: Grid, timings: dict[str, float]) -> DisplacementField:
        """The deformable map between two images that lie on one grid.

        Args:
            pair: ``(2, *grid.shape)``, the moving image first, after the affine stage, intensities in [0, 1].
            inside: where each of them is known and counts, the same shape, bool; elsewhere its nearest known value
                stands, as networks were trained with: an edge that isn't there would pull.
            grid: of both images, and of the result: that of :py:meth:`working_grid`.
            timings: gets the seconds of each stage.
        """

    def deform_guided(
        self, pair: Tensor, inside: Tensor, grid: Grid, timings: dict[str, float], guides: Sequence[Guide]
    ) -> DisplacementField:
        """The same with what :py:meth:`guides` gives, for methods that know of guides."""
        return self.deform(pair, inside, grid, timings)

    def remarks(
        self, pair: Tensor, inside: Tensor, grid: Grid, deformable: DisplacementField, timings: dict[str, float]
    ) -> list[str]:
        """What is to be told of the map that :py:meth:`deform` gave, whose arguments it has."""
        return []

    def examine(
        self, pair: Tensor, inside: Tensor, grid: Grid, deformable: DisplacementField, timings: dict[str, float]
    ) -> Checks:
        """What tells without labels whether that map holds, for methods that measure such; uncertainty on ``grid``."""
        return Checks()

    def guides(self, hints: Hints, grid: Grid, affine: Affine, notes: list[str]) -> Sequence[Guide]:
        """What else is to fit, of a pair on the working grid; most methods know of no guides.

        Args:
            hints: what belongs to the images.
            grid: as in :py:meth:`deform`.
            affine: stage before it.
            notes: gets what is to be told of them.

        Raises:
            ValueError: when there is something that the method can't be guided by.
        """
        if weights := self.guidance.of(hints):
            raise ValueError(f"guides: {self.name} takes none, got {', '.join(weights)}.")
        return ()

    def working_grid(self, grid: Grid) -> Grid:
        """The grid that images are deformed on, of the extent of the fixed image's ``grid``."""
        return grid

    def check(self, grid: Grid) -> None:  # noqa: B027 - most methods take any
        """Raise ValueError when the method can't register images on ``grid``."""

    def describe(self, grid: Grid) -> dict[str, Any]:
        """What was chosen for a fixed image on ``grid``, for reports."""
        return {}

    def register(
        self,
        moving: Tensor,
        fixed: Tensor,
        moving_label: Tensor | None = None,
        fixed_label: Tensor | None = None,
        moving_points: ArrayLike | None = None,
        fixed_points: ArrayLike | None = None,
        moving_mask: Tensor | None = None,
        fixed_mask: Tensor | None = None,
        moving_channels: Sequence[Tensor] = (),
        fixed_channels: Sequence[Tensor] = (),
    ) -> Registration:
        """Register a pair.

        Args:
            moving: ``(1, *spatial)``, any size; a MetaTensor or an ``Image`` knows its place, a plain tensor has voxels
                of 1 mm. What is made of an image is of its class.
            fixed: the same, on its own grid.
            moving_label: integers ``(1, *spatial)``, on any grid in the moving image's space.
            fixed_label: integers, on any grid in the fixed image's space.
            moving_points: ``(N, D)`` in RAS+ mm, in the moving image's space.
            fixed_points: ``(N, D)`` in RAS+ mm; with ``moving_points`` in the same order they give the TRE.
            moving_mask: ``(1, *spatial)`` on any grid in the moving image's space; where it is 0 nothing is compared.
            fixed_mask: the same of the fixed image.
            moving_channels: further images ``(1, *spatial)`` of what the moving image shows, on any grid in its space;
                see :py:class:`Registrar` for what they, labels and landmarks guide.
            fixed_channels: as many of the fixed image, in the same order.

        Raises:
            ValueError: when the images have different numbers of axes, are no single-channel images of the method's
                dimension, have no overlap and there is no affine stage to bring them together, or a mask leaves
                nothing.
        """
        moving, fixed = self._image("moving", moving), self._image("fixed", fixed)
        fixed_grid = Grid.of(fixed)
        labels, masks = (
            [None if item is None else self._here(item) for item in items]
            for items in ((moving_label, fixed_label), (moving_mask, fixed_mask))
        )
        for name, cloud in (("moving_points", moving_points), ("fixed_points", fixed_points)):
            if cloud is not None and np.asarray(cloud).shape[1:] != (fixed_grid.dims,):
                raise ValueError(f"{name} must be (N, {fixed_grid.dims}), got {np.asarray(cloud).shape}.")
        timings: dict[str, float] = {}
        notes: list[str] = []
        checks = Checks()
        clouds = positions(moving_points), positions(fixed_points)
        channels = [[self._here(item) for item in side] for side in (moving_channels, fixed_channels)]
        hints = Hints((labels[0], labels[1]), clouds, (channels[0], channels[1]))
        affine, deformable = self.estimate(moving, fixed, masks[0], masks[1], timings, hints, notes, checks)
        if labels[1] is not None and not Grid.of(labels[1]).matches(fixed_grid):
            labels[1] = on_grid(resample(labels[1], fixed_grid, mode="nearest")[0], fixed_grid, labels[1])
        return Registration(
            moving,
            fixed,
            affine,
            deformable,
            self.intensity,
            labels[0],
            labels[1],
            masks[0],
            masks[1],
            moving_points=clouds[0],
            fixed_points=clouds[1],
            fill=self.fill,
            antialias=self.antialias,
            timings=timings,
            guided=self.guidance.metrics,
            notes=notes,
            checks=checks,
            settings={
                "method": self.name,
                "affine": self.affine,
                **self.describe(fixed_grid),
                **({"guides": weights} if (weights := self.guidance.of(hints)) else {}),
                **self.settings,
            },
        )

    def estimate(
        self,
        moving: Tensor,
        fixed: Tensor,
        moving_mask: Tensor | None = None,
        fixed_mask: Tensor | None = None,
        timings: dict[str, float] | None = None,
        hints: Hints | None = None,
        notes: list[str] | None = None,
        checks: Checks | None = None,
    ) -> tuple[Affine, DisplacementField]:
        """The map alone; arguments and errors as in :py:meth:`register`.

        Args:
            moving: image to register.
            fixed: image to register it to.
            moving_mask: of the moving image.
            fixed_mask: of the fixed image.
            timings: gets the seconds of each stage.
            hints: labels, landmarks and channels of both images, for methods that are guided by such.
            notes: gets what is to be told of them.
            checks: gets what :py:meth:`examine` gives.

        Returns:
            the affine stage, and the deformable map before it on the fixed image's grid.
        """
        timings = {} if timings is None else timings
        moving, fixed = given = self._image("moving", moving), self._image("fixed", fixed)
        moving_grid, fixed_grid = Grid.of(moving), Grid.of(fixed)
        if moving_grid.dims != fixed_grid.dims:
            raise ValueError(f"moving is {moving_grid.dims}-D and fixed is {fixed_grid.dims}-D; both must be the same.")
        self.check(fixed_grid)
        if self.affine == "off" and not fixed_grid.overlaps(moving_grid):
            files = " and ".join(str(image.meta.get(FILE, "an image")) for image in given)
            raise ValueError(
                f"moving and fixed have no overlap in space ({files}); check their origins, or set affine to "
                "translation, rigid or affine to bring them together."
            )
        _check_mask("moving_mask", moving_mask, moving_grid)
        _check_mask("fixed_mask", fixed_mask, fixed_grid)
        affine = Affine.identity(fixed_grid.dims)
        if self.affine != "off":
            with timed(timings, "affine"):
                affine = register_affine(moving, fixed, self.affine, moving_mask=moving_mask, fixed_mask=fixed_mask)
        with timed(timings, "preparation"):
            grid = self.working_grid(fixed_grid)
            pair, inside = self._pair(moving, fixed, grid, affine, moving_mask, fixed_mask)
            hints, notes = hints or Hints(), [] if notes is None else notes
            guides = self.guides(hints, grid, affine, notes)
        deformable = self.deform_guided(pair, inside, grid, timings, guides)
        if self.guidance.points:
            notes += missed(hints, grid, deformable.then(affine))
        notes += self.remarks(pair, inside, grid, deformable, timings)
        if checks is not None:
            found = self.examine(pair, inside, grid, deformable, timings)
            checks.figures |= found.figures
            if found.uncertainty is not None:
                checks.uncertainty = resample(found.uncertainty[None], fixed_grid, grid=grid)[0][0]
        return affine, on_extent(deformable, fixed_grid)

    def assess(self, moving: Tensor, fixed: Tensor, found: Map) -> Checks:
        """What :py:meth:`examine` says of a map that is there already.

        Args:
            moving: ``(1, *spatial)``.
            fixed: the same, on its own grid.
            found: from the fixed image's space to the moving image's.
        """
        moving, fixed = self._image("moving", moving), self._image("fixed", fixed)
        grid = self.working_grid(Grid.of(fixed))
        return self.examine(*self._pair(moving, fixed, grid), grid, DisplacementField.of(found, grid)[0], {})

    def _pair(
        self,
        moving: Tensor,
        fixed: Tensor,
        grid: Grid,
        affine: Affine | None = None,
        moving_mask: Tensor | None = None,
        fixed_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Both images as :py:meth:`deform` takes them, and where they are known and count, ``(2, *grid.shape)``."""
        sides = [self._shown(moving, grid, affine, moving_mask), self._shown(fixed, grid, None, fixed_mask)]
        return torch.cat([values for values, _ in sides]), torch.stack([seen for _, seen in sides])

    def _shown(
        self, image: Tensor, grid: Grid, through: Affine | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """An image as methods see it, ``(1, *grid.shape)`` in [0, 1], and where it is known and counts."""
        values, seen = resample(image, grid, through, antialias=True)
        if mask is not None:
            seen &= resample(mask, grid, through, mode="nearest")[0][0].to(seen.device) > 0
        # only now, since noise that is clipped before it is averaged leaves a bias, and what nobody is to see
        # must not say which intensities are the brightest
        return extend(seen_intensities(self.intensity, values, seen), seen), seen

    def _here(self, image: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The image on the registrar's device, and its file's name where that is known."""
        placed = on_grid(plain(image, dtype, self.device), Grid.of(image), image)
        if FILE in (known := getattr(image, "meta", {})):
            placed.meta[FILE] = known[FILE]
        return placed

    def _image(self, name: str, image: Tensor) -> Any:
        """A float image ``(1, *spatial)`` with the affine of its own dimension, on the registrar's device."""
        if image.dim() not in (3, 4) or image.shape[0] != 1:
            raise ValueError(f"{name} must be (1, *spatial) with 2 or 3 spatial axes, got {list(image.shape)}.")
        low, high = plain(image).aminmax()  # NaN where one is
        if not (low.isfinite() and high.isfinite()):
            raise ValueError(f"{name} holds NaN or infinite intensities; replace them.")
        if low == high:
            raise ValueError(f"{name} is constant, there is nothing to register.")
        return self._here(image, torch.float32)


def positions(points: ArrayLike | None) -> NDArray[np.float64] | None:
    """Landmarks in double precision, where there are any."""
    return None if points is None else np.asarray(points, dtype=np.float64)


def _check_mask(name: str, mask: Tensor | None, grid: Grid) -> None:
    if mask is None:
        return
    if mask.dim() != grid.dims + 1 or mask.shape[0] != 1:
        raise ValueError(f"{name} must be (1, *spatial) with {grid.dims} axes, got {list(mask.shape)}.")
    if not (resample(mask, grid, mode="nearest")[0] > 0).any():
        raise ValueError(f"{name} leaves nothing of the image: it is 0 wherever the image is.")
