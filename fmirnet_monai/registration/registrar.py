"""The Registrar: two images of any size and geometry in, a transform and the warped image out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fmirnet_monai.bundle import find_bundle, load_network, read_config
from fmirnet_monai.spatial import Affine, DisplacementField, Grid, resize_field
from fmirnet_monai.utils import on_device

from .affine_optimizer import AffineOptimizer
from .base import PairRegistrar
from .evidence import Checks, evidence, linear_inverse, spread
from .guidance import Extractor, Hints, channel_guide, feature_guide, label_guide, point_guide
from .guides import Guide, LabelGuide
from .intensity import Percentiles, seen_intensities
from .level import Level, binary, resized
from .optimise import DenseOptimizer, FieldOptimizer, Start
from .orientation import oriented
from .result import timed
from .search import DiscreteSearch

TOGETHER = 8  # slices of a volume that are registered as one batch
FOUND = 0.5  # probability of a structure somewhere, above which an image shows it
THIN = 16  # a volume with fewer slices than this along an axis is registered slice by slice
OPTIMIZERS: dict[str, type[FieldOptimizer]] = {"dense": DenseOptimizer, "affine": AffineOptimizer}
# where descent starts beside the identity; coarse levels suffice for an affine map
STARTS: dict[str, Callable[[str], Start]] = {
    "search": lambda similarity: DiscreteSearch(),
    "affine": lambda similarity: AffineOptimizer(similarity, (100, 50, 0)),
}
CHOSEN: dict[int, dict[str, Any]] = {
    2: {"iterations": (40, 40), "step": 0.25, "update_sigma": 3.0, "margin": 0.2},
    3: {"update_sigma": 1.2},
}


def default_optimizer(
    spatial_dims: int,
    similarity: str = "auto",
    optimizer: str = "dense",
    starts: Sequence[str] | None = None,
    aligned: bool = False,
    **options: Any,
) -> FieldOptimizer:
    """Optimisation of a similarity without a network.

    What the dense one does where nothing else is asked for was chosen on validation pairs
    (``docs/results/descent_*.md``): in 2-D two levels of small steps, in 3-D three of updates that are smoothed less.

    Args:
        spatial_dims: 2 or 3.
        similarity: name in :py:data:`fmirnet_monai.losses.SIMILARITIES`.
        optimizer: name in :py:data:`OPTIMIZERS`.
        starts: names in :py:data:`STARTS`, of the dense one, beside the identity; by default the search, and in
            3-D the affine start too.
        aligned: whether an affine stage goes before it; then an affine start is none.
        options: of the optimizer, in place of its defaults.

    Raises:
        ValueError: for a name that isn't there.
    """
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {optimizer!r}.")
    if optimizer == "dense":
        if starts is None:
            starts = ("search",) if spatial_dims == 2 or aligned else tuple(STARTS)
        if unknown := [name for name in starts if name not in STARTS]:
            raise ValueError(f"starts must be of {', '.join(STARTS)}, got {unknown[0]!r}.")
        options["starts"] = [STARTS[name](similarity) for name in starts]
        options = {**CHOSEN[spatial_dims], **options}
    return OPTIMIZERS[optimizer](similarity, **options)


def quick_optimizer() -> DenseOptimizer:
    """The coarse half of what registers slices directly, which tells whether all of it would do better than a network.

    Half as many steps, twice as long, tell the same. ``benchmarks/quick_check.py`` measures how often it tells so, and
    how often rightly.
    """
    coarse, step = CHOSEN[2]["iterations"][0], CHOSEN[2]["step"]
    return cast(DenseOptimizer, default_optimizer(2, iterations=(coarse // 2,), step=2 * step))


@dataclass
class Registrar(PairRegistrar):
    """Registers pairs by a trained network, refined or not, or by direct optimisation where there is no network.

    Args:
        network: takes ``(B, 2, *spatial)``, moving image first, and gives the field; None optimises directly. Volumes
            are shown to it with axes that run to the left, the back and the head (LPS), as ``prepare`` writes them.
        optimizer: refines the network's field, or registers by itself; None leaves the prediction as it is.
        spatial_dims: 2 or 3, of the network or of the optimisation. Volumes are registered slice by slice when it
            is 2, along its one axis of fewer than 16 voxels, otherwise the one with the largest spacing.
        spatial_size: longest side of the working grid, in voxels of equal size.
        structures: gives the probabilities ``(1, K, *spatial)`` of structures in a volume ``(1, 1, *spatial)``, which
            guide the refinement; None for none.
        rival: registers at half the working resolution, to tell whether direct optimisation does better than the
            network; None leaves it out. It is tried where its starts show that the images lie far apart, for it never
            did elsewhere (``benchmarks/quick_check.py``). Of the slices of a volume, the middle one is tried.
        examined: measure what tells without labels whether a map holds, see :py:func:`evidence`.
        uncertain: measure where other ways of registering the same pair lead elsewhere, see :py:func:`spread`; guides
            have no part in it. Takes three to five registrations more.
        window: of intensities, which a bundle has where its images are measured in absolute units; ``intensity`` may
            be made of it.
        compiled: compile the network for each size of images that it meets (``torch.compile``; on a GPU its CUDA
            graphs), for hundreds of pairs of a few sizes. Needs a C++ compiler, and a minute or more a size.
        progress: show a bar while slices are registered.
        options: those of :py:class:`PairRegistrar`.

    Raises:
        ValueError: when an option is out of its range.
    """

    network: nn.Module | None = None
    optimizer: FieldOptimizer | None = None
    spatial_dims: int = 3
    spatial_size: int = 128
    structures: Extractor | None = None
    rival: DenseOptimizer | None = None
    examined: bool = False
    uncertain: bool = False
    window: Sequence[float] | None = None
    compiled: bool = False
    progress: bool = False
    name: str = field(default="optimisation", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {self.spatial_dims}.")
        if self.spatial_size < 16:
            raise ValueError(f"spatial_size must be at least 16 voxels, got {self.spatial_size}.")
        if self.network is None and self.optimizer is None:
            self.optimizer = default_optimizer(self.spatial_dims, aligned=self.affine != "off")
        if self.network is not None:
            self.network = on_device(self.network, self.device).eval()
            if self.compiled:
                self.network = cast(nn.Module, torch.compile(self.network, dynamic=False, mode="reduce-overhead"))
        if isinstance(self.guidance.extractor, nn.Module):
            self.guidance.extractor.to(self.device)

    @classmethod
    def from_bundle(
        cls,
        bundle: str | Path,
        refine: int | None = 0,
        weights: str | Path | None = None,
        variant: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        flips: bool = False,
        trusted: bool = False,
        **options: Any,
    ) -> Registrar:
        """A bundle's network with the preparation that its ``configs/inference.json`` describes.

        A refinement is guided by the structures that its key ``structures`` finds, where there is one.

        Args:
            bundle: folder of a bundle, or the name of one in ``bundles``.
            refine: at most so many steps of refinement per pair, 0 for none; None for its key ``refine``, without which
                all steps of its ``refinement`` are taken.
            weights: file of weights, by default those published for the variant, otherwise the bundle's own.
            variant: name of a config in the bundle's ``configs/variants``.
            overrides: config keys to values, such as ``{"network_def#num_scales": 1}``.
            flips: average the network's field over the mirror images of a pair.
            trusted: run what the bundle's config says. By default it is read as data: nothing of it is evaluated, and
                only listed networks, losses and intensities are made.
            options: of the constructor, in place of the bundle's.

        Raises:
            FileNotFoundError: when there is no such bundle, variant or file of weights.
            ValueError: when the bundle is not one for registration, its config is not plain data, the weights belong to
                another network, or it is no use to mirror images for it.
        """
        folder = find_bundle(bundle)
        config = read_config(folder, "inference", variant, overrides, trusted)
        size = config.get("spatial_size")
        if size is None:
            raise ValueError(f"bundle: {folder} is none for registration, its inference.json has no spatial_size.")
        if flips and config.get("structures"):
            raise ValueError(
                f"flips: {folder.name} knows structures by where they lie and can't read mirror images; leave it off."
            )
        network = load_network(folder, weights, config, variant)
        prepared: dict[str, Any] = {
            "spatial_dims": len(size),
            "spatial_size": max(size),
            "intensity": config.get("intensity"),
            "affine": config.get("affine", "off"),
            "name": f"{folder.name}, {variant}" if variant else folder.name,
            "window": config.get("window"),
            "structures": getattr(network, "structures", None) if config.get("structures") else None,
        }
        refine = config.get("refine") if refine is None else refine
        if refine != 0:
            prepared["optimizer"] = config.get("refinement")
        if refine:
            prepared["optimizer"].iterations = (refine,)
        if flips:
            from fmirnet_monai.networks import FlipAverage  # of MONAI's networks, as any bundle's

            network = FlipAverage(network)
        return cls(network, **{**prepared, **options})

    def check(self, grid: Grid) -> None:
        """Raise ValueError when a method for volumes gets a 2-D image, or a volume of one slice."""
        if self.spatial_dims > grid.dims:
            raise ValueError(f"{self.name} registers volumes, these images are 2-D; choose a 2-D method.")
        if self.spatial_dims == 3 and min(grid.shape) == 1:
            raise ValueError(f"{self.name} registers volumes, these have one slice; choose a 2-D method (slices).")

    def describe(self, grid: Grid) -> dict[str, Any]:
        """Refinement, working grid, device."""
        refining = None if self.network is None else self.optimizer
        return {
            "refinement_steps": 0 if refining is None else max(refining.iterations),
            "slice_by_slice": self.spatial_dims < grid.dims,
            "working_grid": list(self.working_grid(grid).shape),
            "device": str(self.device),
        }

    def _slice_axis(self, grid: Grid) -> int | None:
        """Axis along which a volume is cut into slices, None where image and method have one dimension."""
        if self.spatial_dims == grid.dims:
            return None
        for most in (1, THIN - 1):
            thin = [axis for axis, size in enumerate(grid.shape) if size <= most]
            if thin and (most == 1 or len(thin) == 1):
                return thin[0]
        return 2 - int(np.argmax((grid.spacing / grid.spacing.max()).round(3)[::-1]))

    def working_grid(self, grid: Grid) -> Grid:
        """Of about equal voxels, ``spatial_size`` of them along the longest side; slices stay as many as they are.

        The axes of volumes are in LPS order: a network that has learnt where organs lie has to see a volume the way it
        saw those that it learnt from.
        """
        axis = self._slice_axis(grid)
        kept = [i for i in range(grid.dims) if i != axis]
        voxel = max(grid.shape[i] * grid.spacing[i] for i in kept) / self.spatial_size
        size = list(grid.shape)
        for i in kept:
            wanted = round(grid.shape[i] * grid.spacing[i] / voxel)
            # a network wants the size that it was trained on, an optimiser gains nothing from it
            size[i] = max(2, wanted) if self.network is not None else min(grid.shape[i], max(16, wanted))
        return oriented(grid.resized(size)) if self.spatial_dims == 3 else grid.resized(size)

    def guides(self, hints: Hints, grid: Grid, affine: Affine, notes: list[str]) -> Sequence[Guide]:
        """Labels, landmarks and channels, as :py:attr:`guidance` weights them.

        Raises:
            ValueError: when what is to guide isn't there or can't be used, or nothing is optimised.
        """
        weights = self.guidance.of(hints)
        found: list[Guide] = []
        if self.optimizer is None:
            if weights:
                raise ValueError("guides: serve optimisation and refinement, and there is neither; set refine above 0.")
            return ()
        if "labels" in weights:
            guide, told = label_guide(hints, grid, affine, weights["labels"])
            found.append(guide)
            notes += told
        if "points" in weights:
            found.append(point_guide(hints, grid, affine, weights["points"], self.device))
        if "channels" in weights:
            scale = partial(seen_intensities, Percentiles())
            found.append(channel_guide(hints, grid, affine, weights["channels"], scale, self.optimizer.losses))
        return found

    def deform(self, pair: Tensor, inside: Tensor, grid: Grid, timings: dict[str, float]) -> DisplacementField:
        """Predict or optimise by the images alone, see :py:meth:`deform_guided`."""
        return self.deform_guided(pair, inside, grid, timings, ())

    def deform_guided(
        self, pair: Tensor, inside: Tensor, grid: Grid, timings: dict[str, float], guides: Sequence[Guide]
    ) -> DisplacementField:
        """Predict or optimise, slice by slice where asked; slices that only one image shows stay where they are."""
        axis = self._slice_axis(grid)
        spacing = [s for i, s in enumerate(grid.spacing.tolist()) if i != axis]
        items, valid = _items(pair, axis), _items(inside, axis)
        shown = valid.prod(1).flatten(1).any(1).nonzero().flatten().tolist()
        alone = self.guidance.extractor is not None and self.guidance.features
        size = 1 if guides or alone else TOGETHER  # a guide belongs to a slice
        ddf = items.new_zeros(len(items), len(spacing), *items.shape[2:])
        bar = tqdm(total=len(shown), desc="slices", unit="slice", disable=not self.progress or len(items) == 1)
        for begin in range(0, len(shown), size):
            part = shown[begin : begin + size]
            own = [guide if axis is None else guide.cut(axis, part[0]) for guide in guides]
            ddf[part] = self._deform(items[part], valid[part], spacing, own, timings)
            bar.update(len(part))
        bar.close()
        return DisplacementField(ddf[0] if axis is None else _stacked(ddf, axis), grid)

    def _deform(
        self, pair: Tensor, seen: Tensor, spacing: Sequence[float], guides: list[Guide], timings: dict[str, float]
    ) -> Tensor:
        """Fields ``(B, D, *spatial)`` of pairs ``(B, 2, *spatial)``, where both are known the same shape."""
        ddf = pair.new_zeros(len(pair), len(spacing), *pair.shape[2:])
        if self.network is not None:
            with timed(timings, "network"):
                ddf = self._predict(self.network, pair)
        if self.optimizer is None:
            return ddf
        with timed(timings, "optimisation"):
            (moving, fixed), masks = pair.split(1, dim=1), seen.split(1, dim=1)
            if self.guidance.extractor is not None and self.guidance.features:
                guides = [*guides, feature_guide(self.guidance.extractor, moving, fixed, self.guidance.features)]
            if self.structures is not None and self.guidance.structures:
                guides = [*guides, *self._structures(moving, fixed)]
            return self.optimizer(moving, fixed, ddf, masks[0], masks[1], spacing, guides)

    @torch.no_grad()
    def _predict(self, network: nn.Module, pair: Tensor) -> Tensor:
        """A network's fields ``(B, D, *spatial)`` of pairs ``(B, 2, *spatial)``."""
        found: Tensor = network(pair)
        return found.clone() if self.compiled else found  # a CUDA graph writes its next result to the same place

    def _structures(self, moving: Tensor, fixed: Tensor) -> list[LabelGuide]:
        """What guides a refinement by the structures that are found in both images ``(1, 1, *spatial)``, if any."""
        find = cast(Extractor, self.structures)
        with torch.no_grad():
            found = [find(moving), find(fixed)]
        shown = torch.stack([side.flatten(2).amax(2)[0] > FOUND for side in found]).all(0)  # others pull nothing
        sides = [side[:, shown] for side in found]
        return [LabelGuide(moving=sides[0], fixed=sides[1], weight=self.guidance.structures)] if shown.any() else []

    def certainty(self, image: Tensor) -> float:
        """How sure :py:attr:`structures` is of what it finds in a volume: the mean probability of the likeliest one.

        Of images of a kind that it has learnt it is larger than of others (Hendrycks and Gimpel, "A baseline for
        detecting misclassified and out-of-distribution examples in neural networks", ICLR 2017).

        Args:
            image: ``(1, *spatial)`` of three axes, on its own grid.

        Returns:
            number in [0, 1]; 0 where structures take up less than a hundredth of the volume, and of what is no volume
            that could be registered.

        Raises:
            ValueError: when there is nothing that finds structures.
        """
        if self.structures is None:
            raise ValueError(f"structures: {self.name} finds none.")
        if image.dim() != 4 or not torch.isfinite(image).all() or image.min() == image.max():
            return 0.0
        values, _ = self._shown(self._image("image", image), self.working_grid(Grid.of(image)))
        with torch.no_grad():
            found = self.structures(values[None])
        likeliest = found.max(1).values
        shown = likeliest > 1 - found.sum(1)
        return float(likeliest[shown].mean()) if shown.float().mean() > 0.01 else 0.0

    def examine(
        self, pair: Tensor, inside: Tensor, grid: Grid, deformable: DisplacementField, timings: dict[str, float]
    ) -> Checks:
        """What tells without labels whether the map holds, as far as it is asked for."""
        found = Checks()
        if self.examined:
            with timed(timings, "verdict"):
                found.figures = self._evidence(pair, inside, grid, deformable)
        if self.uncertain:
            with timed(timings, "uncertainty"):
                others = (other.ddf for other in self._otherwise(pair, inside, grid))
                back = self.deform(pair.flip(0), inside.flip(0), grid, {})
                found.uncertainty = spread(deformable.ddf, others, back.ddf, grid.spacing.tolist())
        return found

    def _otherwise(self, pair: Tensor, inside: Tensor, grid: Grid) -> Iterator[DisplacementField]:
        """The same pair registered in other ways.

        By a network, mirrored along each axis and all; where it knows structures by where they lie, by direct
        optimisation; and by that, from each start alone. Of a network that averages them each counts.
        """
        if self.network is not None and self.structures is None:
            from fmirnet_monai.networks import FlipAverage

            axes = [i for i in range(grid.dims) if i != self._slice_axis(grid)]
            alone, ways = self, [*([axis] for axis in axes), axes]
            if isinstance(self.network, FlipAverage):
                alone, ways = replace(self, network=self.network.network), [[], *ways]
            for mirrored in ways:
                along = [axis + 1 for axis in mirrored]
                ddf = alone.deform(pair.flip(along), inside.flip(along), grid, {}).ddf.flip(along)
                ddf[mirrored] *= -1
                yield DisplacementField(ddf, grid)
        elif self.network is not None:
            direct = default_optimizer(self.spatial_dims, aligned=self.affine != "off")
            yield replace(self, network=None, structures=None, optimizer=direct).deform(pair, inside, grid, {})
        else:
            for start in ((), *((start,) for start in cast(FieldOptimizer, self.optimizer).starts)):
                optimizer = copy(cast(FieldOptimizer, self.optimizer))
                optimizer.starts = start
                yield replace(self, optimizer=optimizer).deform(pair, inside, grid, {})

    def _evidence(self, pair: Tensor, inside: Tensor, grid: Grid, deformable: DisplacementField) -> dict[str, float]:
        """The figures of :py:func:`evidence`, of all slices together."""
        axis = self._slice_axis(grid)
        kept = [i for i in range(grid.dims) if i != axis]
        items, valid, ddf = (_items(tensor, axis) for tensor in (pair, inside, deformable.ddf[kept]))
        shown = valid.prod(1).flatten(1).any(1)
        return evidence(items[shown], valid[shown], ddf[shown], grid.spacing[kept].tolist(), self._back)

    def _back(
        self,
        moving: Tensor,
        fixed: Tensor,
        there: Tensor,
        moving_mask: Tensor | None,
        fixed_mask: Tensor | None,
        spacing: Sequence[float],
    ) -> Tensor:
        """Fields of a batch of small images: the network's prediction, or what the coarsest level of descent finds."""
        if self.network is not None:
            pairs = torch.cat([moving, fixed], dim=1).split(TOGETHER)
            return torch.cat([self._predict(self.network, part) for part in pairs])
        optimizer = copy(cast(FieldOptimizer, self.optimizer))
        optimizer.starts = ()
        optimizer.iterations = (max(1, optimizer.iterations[0] // 2), 0)[: self.spatial_dims - 1]
        return optimizer(moving, fixed, linear_inverse(there), moving_mask, fixed_mask, spacing)

    def remarks(
        self, pair: Tensor, inside: Tensor, grid: Grid, deformable: DisplacementField, timings: dict[str, float]
    ) -> list[str]:
        """Whether the rival does better."""
        if self.network is None or self.rival is None:
            return []
        axis = self._slice_axis(grid)
        kept = [i for i in range(grid.dims) if i != axis]
        field, images, seen = deformable.ddf[kept], pair, inside
        if axis is not None:
            shown = inside.all(0).movedim(axis, 0).flatten(1).sum(1)
            if not shown.any():
                return []
            index = int((shown > 0).nonzero().flatten().median())
            field, images, seen = (tensor.select(axis + 1, index) for tensor in (field, images, seen))
        size = [max(2, n // 2) for n in images.shape[1:]]
        (moving, moving_mask), (fixed, fixed_mask) = (
            resized(image[None, None].float(), binary(mask[None, None]), size)
            for image, mask in zip(images, seen, strict=True)
        )
        with timed(timings, "quick_check"):
            level = Level(moving, fixed, moving_mask, fixed_mask, 0, moving.new_ones(()))
            begun = self.rival.begin(moving, fixed, moving_mask, fixed_mask)
            if not self.rival.departs(level, begun):
                return []
            spacing = [float(grid.spacing[i]) for i in kept]
            found = self.rival(moving, fixed, None, moving_mask, fixed_mask, spacing, begun=begun)
            if not bool(self.rival.better(level, resize_field(field[None], size), found).all()):
                return []
        return ["direct optimisation, tried at half the resolution, fits better than the network: compare bundle none."]


def _items(tensor: Tensor, axis: int | None) -> Tensor:
    """The slices of ``(C, *spatial)`` along an axis as a batch ``(B, C, ...)``, or all of it as the only item."""
    return (tensor[None] if axis is None else tensor.movedim(axis + 1, 0)).float()


def _stacked(fields: Tensor, axis: int) -> Tensor:
    """One field ``(D, *spatial)`` from those of slices, ``(B, D - 1, ...)``, which nothing displaces along ``axis``."""
    stacked = fields.movedim(0, axis + 1)
    zeros = torch.zeros_like(stacked[:1])
    return torch.cat([stacked[:axis], zeros, stacked[axis:]])
