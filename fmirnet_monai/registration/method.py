"""How a command registers, from the options that its user gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmirnet_monai.bundle import anywhere, content_of, find_bundle, published_weights
from fmirnet_monai.losses import SIMILARITIES
from fmirnet_monai.spatial import Grid
from fmirnet_monai.spatial.image import on_grid
from fmirnet_monai.utils import digest, named_device

from .guidance import Guidance
from .intensity import Intensity, Percentiles, Window
from .registrar import OPTIMIZERS, THIN, Registrar, default_optimizer, quick_optimizer
from .result import Registration

BUNDLE_2D = "fmirnet_universal"
BUNDLE_3D = "fmirnet_sliver"
CERTAIN = 0.86  # of the structures in volumes of a kind that these weights know, see :py:meth:`Registrar.certainty`
NO_BUNDLE = "none"  # direct optimisation
CT_WINDOW = (-125.0, 275.0)  # HU, of soft tissue


@dataclass(frozen=True)
class Method:
    """How pairs are to be registered; see the arguments of the command ``register``. A bundle is loaded once.

    ``progress`` shows a bar while the slices of a volume are registered. ``checks`` measures what tells whether the map
    holds (:py:attr:`Registrar.examined`) and, of a network's field of slices, tells whether direct optimisation would
    do better (:py:attr:`Registrar.rival`). ``uncertainty`` measures where it may not (:py:attr:`Registrar.uncertain`).
    ``trust_bundle`` runs what the bundle's config says, in place of reading it as data.
    """

    bundle: str | None = None
    affine: str = "auto"
    refine: int | None = None
    slices: bool | None = None
    intensity: str = "auto"
    device: str = "auto"
    similarity: str = "auto"
    optimizer: str = "dense"
    fill: float | None = None
    antialias: bool = False
    guidance: Guidance = field(default_factory=Guidance)
    flips: bool = False
    variant: str | None = None
    progress: bool = True
    checks: bool = True
    uncertainty: bool = False
    trust_bundle: bool = False
    _loaded: dict[tuple[str, int], Registrar] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, table in (("similarity", SIMILARITIES), ("optimizer", OPTIMIZERS)):
            if getattr(self, name) not in table:
                raise ValueError(f"{name} must be one of {', '.join(table)}, got {getattr(self, name)!r}.")
        if self.refine is not None and self.refine < 0:
            raise ValueError(f"refine must be at least 0, got {self.refine}.")
        window(self.intensity)
        try:
            torch.zeros(1, device=self.torch_device())
        except (RuntimeError, AssertionError) as error:  # the latter from a build without CUDA
            raise ValueError(f"device: {self.device!r} is not there; give auto or cpu.") from error

    def torch_device(self) -> torch.device:
        """The device named, or the best there is."""
        return named_device(self.device)

    def identity(self) -> dict[str, Any]:
        """What results depend on, as JSON; of bundles and of the feature extractor what their files hold.

        Raises:
            FileNotFoundError: when there is no such bundle.
        """
        apart = ("bundle", "guidance", "progress", "trust_bundle", "_loaded")
        options = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in apart}
        guidance = asdict(replace(self.guidance, extractor=None))
        path = getattr(self.guidance.extractor, "path", None)
        return {
            **options,
            "chosen": self.bundle is None,
            "bundles": [content_of(folder, self.variant) for folder in self.bundles()],
            "guidance": guidance | {"extractor": None if path is None else digest(path)},
        }

    def bundles(self) -> list[Path]:
        """Folders of the bundles that may be taken.

        Raises:
            FileNotFoundError: when there is no such bundle.
        """
        if self.bundle == NO_BUNDLE:
            return []
        return [find_bundle(name) for name in ((BUNDLE_2D, BUNDLE_3D) if self.bundle is None else (self.bundle,))]

    def anywhere(self) -> Method:
        """The same for another working folder: a bundle of this one is named by its whole path."""
        if self.bundle in (None, NO_BUNDLE):
            return self
        return replace(self, bundle=anywhere(str(self.bundle)))

    def register(self, moving: Tensor, fixed: Tensor, **parts: Any) -> Registration:
        """Register a pair; arguments and errors as :py:meth:`PairRegistrar.register` has them."""
        return self.registrar(moving, fixed, self._steered(parts)).register(moving, fixed, **parts)

    def registrar(self, moving: Tensor, fixed: Tensor, steered: bool = False) -> Registrar:
        """The Registrar for this pair.

        Without a named bundle these are the weights for slices, those for volumes where they know what both images
        show, and otherwise direct optimisation.

        Args:
            moving: image ``(1, *spatial)``.
            fixed: image ``(1, *spatial)``.
            steered: more than the two images says where they fit, such as masks, which only optimisation heeds.
        """
        thin = fixed.dim() - 1 == 3 and min(fixed.shape[1:]) < THIN
        flat = fixed.dim() - 1 == 2 or (thin if self.slices is None else self.slices)
        bundle = self._bundle(flat, steered)
        registrar = self._for_pair(bundle, flat, moving, fixed)
        if self.bundle is None and bundle == BUNDLE_3D:
            certainties = [registrar.certainty(image) for image in (moving, fixed)]
            if min(certainties) < CERTAIN:
                bundle = NO_BUNDLE
                registrar = self._for_pair(bundle, flat, moving, fixed)
            known = f"{'not ' if bundle == NO_BUNDLE else ''}of a kind that {BUNDLE_3D} knows"
            registrar.settings["volumes"] = f"{known}, certainty {certainties[0]:.2f} and {certainties[1]:.2f}"
        registrar.examined, registrar.uncertain = self.checks, self.uncertainty
        if self.checks and registrar.network is not None and registrar.spatial_dims == 2:
            registrar.rival = quick_optimizer()
        if self.slices is not None and fixed.dim() - 1 == 3 and self.slices != (registrar.spatial_dims == 2):
            takes = "slices" if registrar.spatial_dims == 2 else "volumes"
            raise ValueError(f"slices: {self.slices} does not fit {bundle}, which takes {takes}; leave it out.")
        return registrar

    def _for_pair(self, bundle: str, flat: bool, moving: Tensor, fixed: Tensor) -> Registrar:
        loaded = self._load(bundle, 2 if flat else 3)
        scale, said = choose_intensity(self.intensity, loaded.window, moving, fixed, tissue=flat or bundle != NO_BUNDLE)
        return replace(loaded, intensity=scale, settings={"intensity": said, **loaded.settings}, progress=self.progress)

    def _steered(self, parts: Mapping[str, Any]) -> bool:
        guides = self.guidance
        given = (parts.get(f"{side}_{name}") for side in ("moving", "fixed") for name in ("mask", "channels"))
        return bool(guides.labels or guides.points or guides.extractor) or any(
            item is not None and len(item) > 0 for item in given
        )

    def slice_registrar(self, volume: Tensor) -> tuple[Tensor, Registrar]:
        """The volume's intensities in [0, 1], and a Registrar of its slices."""
        loaded = self._load(self._bundle(flat=True), 2)
        scale, _ = choose_intensity(self.intensity, loaded.window, volume, volume, tissue=True)
        return on_grid(scale(volume), Grid.of(volume), volume), replace(loaded, intensity=_unchanged)

    def _bundle(self, flat: bool, steered: bool = False) -> str:
        """The one that is named, the weights for slices or volumes, or none where these can't do what is asked for."""
        if self.bundle is not None:
            return self.bundle
        learned = self.similarity == "auto" and self.optimizer == "dense"
        if flat:
            return BUNDLE_2D if learned and not (steered and not self.refine) else NO_BUNDLE
        plain = self.affine in ("auto", "affine") and not (steered or self.flips or self.variant)
        return BUNDLE_3D if learned and plain else NO_BUNDLE

    def _load(self, bundle: str, dims: int) -> Registrar:
        """The Registrar of a bundle; it is made once, and what a pair needs of its own is put in its place."""
        if (bundle, dims) not in self._loaded:
            self._loaded[bundle, dims] = self._build(bundle, dims)
        return self._loaded[bundle, dims]

    def _build(self, bundle: str, dims: int) -> Registrar:
        options: dict[str, Any] = {
            "device": self.torch_device(),
            "fill": self.fill,
            "antialias": self.antialias,
            "guidance": self.guidance,
        }
        if self.affine != "auto":
            options["affine"] = self.affine
        settings = {"similarity": self.similarity}
        if bundle == NO_BUNDLE:
            if self.flips or self.variant:
                name, said = ("flips", "are of") if self.flips else ("variant", "is of")
                raise ValueError(f"{name}: {said} a network, and direct optimisation has none; name a bundle.")
            aligned = self.affine not in ("auto", "off")
            optimizer = default_optimizer(dims, self.similarity, self.optimizer, aligned=aligned)
            settings |= {"optimizer": self.optimizer}
            return Registrar(optimizer=optimizer, spatial_dims=dims, settings=settings, **options)
        if self.optimizer != "dense":
            raise ValueError(f"optimizer: {self.optimizer} is for direct optimisation; give bundle none.")
        folder = find_bundle(bundle)
        settings |= {"bundle": str(folder), "weights_sha256": digest(published_weights(folder, self.variant))} | (
            {"flips": "true"} if self.flips else {}
        )
        registrar = Registrar.from_bundle(
            folder,
            self.refine,
            variant=self.variant,
            flips=self.flips,
            trusted=self.trust_bundle,
            settings=settings,
            **options,
        )
        if self.similarity != "auto":
            if registrar.optimizer is None:
                raise ValueError(f"similarity: {self.similarity} is for the refinement; set refine above 0.")
            registrar.optimizer.similarity = self.similarity
        return registrar


def register(moving: Tensor, fixed: Tensor, *, options: Method | None = None, **parts: Any) -> Registration:
    """Register a pair of images as the command ``register`` does.

    Args:
        moving: ``(1, *spatial)``, as :py:func:`fmirnet_monai.data.read_image` gives it.
        fixed: the same, on its own grid.
        options: how; by default the weights for slices or for volumes of kinds that they know, or direct optimisation.
        parts: labels, landmarks and masks, see :py:meth:`PairRegistrar.register`.

    Raises:
        ValueError: when the pair can't be registered.
    """
    return (options or Method()).register(moving, fixed, **parts)


def _reach_beyond(bounds: Sequence[float], *images: Tensor) -> bool:
    """Whether all images have values at or beyond both ends of a window."""
    return all(image.min() <= bounds[0] and image.max() >= bounds[1] for image in images)


def _unchanged(image: Tensor) -> Tensor:
    return image


def window(intensity: str) -> tuple[float, float] | None:
    """The bounds of ``LOW,HIGH``, or None for a name; ValueError for anything else."""
    if intensity in ("auto", "bundle", "percentiles"):
        return None
    try:
        low, high = (float(part) for part in intensity.strip("()[]").split(","))
    except ValueError:
        low = high = math.nan
    if not low < high:
        raise ValueError(f"intensity must be auto, bundle, percentiles or LOW,HIGH with LOW < HIGH, got {intensity!r}.")
    return low, high


def choose_intensity(
    intensity: str, own: Sequence[float] | None, moving: Tensor, fixed: Tensor, tissue: bool = False
) -> tuple[Intensity, str]:
    """The map to [0, 1] and what to call it.

    ``auto`` takes the bundle's own window where both images reach beyond both its ends, as CT in Hounsfield units does,
    and each image's percentiles otherwise; ``tissue`` gives a bundle that has none the window of soft tissue.
    """
    bounds = window(intensity)
    if intensity == "bundle" and own is None:
        raise ValueError("intensity: the bundle has no window of its own; give percentiles or LOW,HIGH.")
    own = CT_WINDOW if own is None and tissue else own
    if own is not None and (intensity == "bundle" or (intensity == "auto" and _reach_beyond(own, moving, fixed))):
        bounds = (float(own[0]), float(own[1]))
    if bounds is None:
        return Percentiles(), "percentiles 0.5 to 99.5 of each image"
    return Window(*bounds), f"window {bounds[0]:g} to {bounds[1]:g}"
