"""The methods of a comparison, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from fmirnet_monai.baselines import (
    ConvexAdamRegistrar,
    DemonsRegistrar,
    ElastixRegistrar,
    GreedyRegistrar,
    IdentityRegistrar,
    LCCDemonsRegistrar,
    SynRegistrar,
    TimeVaryingRegistrar,
)
from fmirnet_monai.bundle import anywhere, find_bundle, published_weights, read_config, variant_file
from fmirnet_monai.registration import PairRegistrar, Registrar
from fmirnet_monai.registration.intensity import Intensity, Percentiles
from fmirnet_monai.registration.registrar import default_optimizer
from fmirnet_monai.utils import digest, named_device, read_json

from .training import TrainingJob

CLASSICAL: dict[str, type[PairRegistrar]] = {
    "identity": IdentityRegistrar,
    "affine": IdentityRegistrar,
    "elastix": ElastixRegistrar,
    "syn": SynRegistrar,
    "lddmm": TimeVaryingRegistrar,
    "demons": DemonsRegistrar,
    "lcc_demons": LCCDemonsRegistrar,
    "greedy": GreedyRegistrar,
    "convexadam": ConvexAdamRegistrar,
}
OPTIMISE = "optimise"
REFINED = "+refine"
# what tuning searches: weights of a network's loss; settings of direct optimisation and of refinement
LOSS_GRID: dict[str, list[Any]] = {"loss#weights#smoothness": [0.01, 0.05]}
OPTIMISER_GRID: dict[str, list[Any]] = {
    "step": [0.25, 0.5],
    "update_sigma": [2.0, 3.0, 4.0],
    "field_sigma": [0.35, 0.7],
}


@dataclass(frozen=True)
class Context:
    """What all methods of a comparison share.

    Attributes:
        bundle: the bundle whose networks and preparation are compared.
        models_dir: folder of the runs that trained them, ``NAME/model.pt`` each; the bundle's own weights serve
            ``fmirnet`` where there is none.
        affine: stage before every method but ``identity``.
        intensity: ``"bundle"``, the bundle's own map to [0, 1], or ``"percentiles"``.
        device: of networks and optimisation; auto for the best there is where a case is run.
        overrides: of the bundle's configs, for training and inference.
        trust_bundle: run what the configs of bundles say, in place of reading them as data.
    """

    bundle: str = "fmirnet_chaos"
    models_dir: str | None = None
    affine: str = "off"
    intensity: str = "bundle"
    device: str = "cpu"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    trust_bundle: bool = False

    def settings(self) -> dict[str, Any]:
        """What results depend on."""
        return {key: value for key, value in asdict(self).items() if key != "trust_bundle"}

    def anywhere(self) -> Context:
        """The same for another working folder."""
        models = None if self.models_dir is None else str(Path(self.models_dir).absolute())
        return replace(self, bundle=anywhere(self.bundle), models_dir=models)

    def scale(self) -> Intensity:
        """The map of intensities to [0, 1] that all methods get and all images are measured in."""
        if self.intensity == "percentiles":
            return Percentiles()
        config = read_config(find_bundle(self.bundle), overrides=self.overrides, trusted=self.trust_bundle)
        return config.get("intensity")


@dataclass(frozen=True)
class Row:
    """What every row of a comparison has.

    Attributes:
        name: of the method.
        label: of the row; by default the name.
        settings: of the method.
    """

    name: str
    label: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def row(self) -> str:
        """Name of the row."""
        return self.label or self.name


@dataclass(frozen=True)
class MethodSpec(Row):
    """One method of registration in a comparison.

    Attributes:
        name: one of :py:data:`CLASSICAL`, ``optimise``, ``fmirnet``, or a config of the bundle's ``configs/variants``;
            any network's name may end in ``+refine``.
        settings: of the method. Those of a network are ``variant`` (config in ``configs/variants``), ``overrides``
            (config keys to values), ``model`` or ``weights`` (a file, or ``"bundle"`` for the bundle's own), ``bundle``
            (another one than that of the comparison, whose overrides then don't count), ``flips`` (average over mirror
            images), ``datalist`` (to train on, below the working folder), and those of its refinement.
    """

    @property
    def learned(self) -> bool:
        """Whether it needs a training run."""
        return self.name not in CLASSICAL and self.name != OPTIMISE and "weights" not in self.settings

    @property
    def refined(self) -> bool:
        """Whether a network's field is refined."""
        return self.name.endswith(REFINED)

    @property
    def network(self) -> str:
        """The network's name, without the refinement."""
        return self.name.removesuffix(REFINED)

    @property
    def model(self) -> str:
        """Folder of its run in ``models_dir``: setting ``model``, or the network's name and its tuned loss weights."""
        overrides = self.settings.get("overrides", {})
        parts = [self.network, *(f"{overrides[key]:g}" for key in LOSS_GRID if key in overrides)]
        return self.settings.get("model", "_".join(parts))

    @property
    def variant(self) -> str | None:
        """The network's config in ``configs/variants``, None for the bundle's own."""
        default = None if self.network == "fmirnet" else self.network
        return self.settings.get("variant", default)

    def anywhere(self) -> MethodSpec:
        """The same for another working folder."""
        settings = dict(self.settings)
        if "bundle" in settings:
            settings["bundle"] = anywhere(settings["bundle"])
        if settings.get("weights", "bundle") != "bundle":
            settings["weights"] = str(Path(settings["weights"]).absolute())
        return replace(self, settings=settings)

    def content(self, context: Context) -> list[str]:
        """SHA-256 of what a case depends on beside its files and the settings: of a network, its weights."""
        if self.name in CLASSICAL or self.name == OPTIMISE:
            return []
        folder = find_bundle(self.settings.get("bundle", context.bundle))
        try:
            return [digest(self._weights(folder, context))]
        except FileNotFoundError:  # which is told when it is built
            return []

    def job(self, datalist: str, context: Context, common: Mapping[str, Any]) -> TrainingJob:
        """The run that trains its network.

        Args:
            datalist: JSON datalist of pairs.
            context: with a ``models_dir``.
            common: overrides that all networks share, such as ``max_epochs``.
        """
        if context.models_dir is None:
            raise ValueError(f"{self.row}: has to be trained; give --models_dir for its run.")
        folder = Path(context.models_dir) / self.model
        bundle = self.settings.get("bundle")
        shared = {} if bundle else context.overrides
        overrides = {**shared, **common, **self.settings.get("overrides", {})}
        return TrainingJob(folder, datalist, bundle or context.bundle, self.variant, overrides)

    def build(self, context: Context, dims: int) -> PairRegistrar:
        """The registrar for images of ``dims`` axes.

        Raises:
            ValueError: for a setting that the method does not have, or one out of its range.
            FileNotFoundError: when there are no weights, no such variant or no such bundle.
        """
        folder = find_bundle(self.settings.get("bundle", context.bundle))
        affine = "off" if self.name == "identity" else context.affine
        common: dict[str, Any] = {"intensity": context.scale(), "affine": affine, "name": self.row}
        if self.name == "affine":
            common["affine"] = "affine"
        try:
            if self.name in CLASSICAL:
                return CLASSICAL[self.name](**common, **_tuples(self.settings))
            if self.name == OPTIMISE:
                optimizer = default_optimizer(dims, aligned=affine != "off", **_tuples(self.settings))
                device = named_device(context.device)
                return Registrar(None, optimizer, spatial_dims=dims, device=device, **common)
        except TypeError as error:
            raise ValueError(f"{self.row}: {error}; check its settings {dict(self.settings)}.") from error
        return self._network(folder, context, common)

    def _network(self, folder: Path, context: Context, common: dict[str, Any]) -> Registrar:
        if self.variant:
            variant_file(folder, self.variant)  # a misspelt method is no method without weights
        weights = self._weights(folder, context)
        own = ("bundle", "variant", "model", "weights", "overrides", "flips", "datalist")
        settings = {key: value for key, value in self.settings.items() if key not in own}
        shared = {} if "bundle" in self.settings else context.overrides
        overrides = {**shared, **self.settings.get("overrides", {})}
        refine: int | None = 0
        if self.refined:
            refine = settings.pop("steps", None)
            overrides = {**overrides, **{f"refinement#{key}": value for key, value in settings.items()}}
        elif settings:
            raise ValueError(f"{self.row}: a network has no settings {sorted(settings)} unless it is refined.")
        flips = self.settings.get("flips", False)
        common = {**common, "trusted": context.trust_bundle, "device": named_device(context.device)}
        return Registrar.from_bundle(folder, refine, weights, self.variant, overrides, flips, **common)

    def _weights(self, folder: Path, context: Context) -> Path:
        given, model = self.settings.get("weights"), self.model
        file = published_weights(folder, self.variant)
        if given is not None:
            file = file if given == "bundle" else Path(given)
        elif context.models_dir is not None:
            run = Path(context.models_dir) / model / "model.pt"
            file = run if run.is_file() or model != "fmirnet" else file
        elif model != "fmirnet":
            raise FileNotFoundError(f"{self.row}: needs trained weights; give --models_dir.")
        if not file.is_file():
            raise FileNotFoundError(f"{self.row}: no weights {file}; train this method first.")
        return file

    def grid(self) -> list[dict[str, Any]]:
        """The settings that tuning searches, one dictionary a trial; none for methods without."""
        if self.name in CLASSICAL:
            options = getattr(CLASSICAL[self.name], "GRID", {})
        elif self.name == OPTIMISE or self.refined:
            options = OPTIMISER_GRID
        else:
            options = LOSS_GRID
        found = [dict(zip(options, values, strict=True)) for values in product(*options.values())] if options else []
        return [{"overrides": overrides} for overrides in found] if options is LOSS_GRID else found


def parse_methods(names: Iterable[str], tuned: str | Path | None = None) -> list[MethodSpec]:
    """Methods by name, with the settings that tuning found.

    Args:
        names: see :py:class:`MethodSpec`.
        tuned: JSON file that ``compare tune`` wrote.

    Raises:
        FileNotFoundError: when the file does not exist.
        ValueError: when it is none of that form, or two methods have one name.
    """
    listed = list(names)
    if len(set(listed)) < len(listed):
        raise ValueError(f"methods: each may be named once, got {', '.join(listed)}.")
    settings = read_tuned(tuned) if tuned else {}
    return [MethodSpec(name, settings=settings.get(name, {})) for name in listed]


def read_tuned(path: str | Path) -> dict[str, dict[str, Any]]:
    """Settings by method from the JSON file that ``compare tune`` wrote.

    Raises:
        FileNotFoundError: when the file does not exist.
        ValueError: when it is none of that form.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"tuned: no such file: {path}; make it with 'compare tune'.")
    try:
        return {name: dict(entry["settings"]) for name, entry in read_json(file)["methods"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"tuned: {path} is no file that 'compare tune' wrote ({type(error).__name__}).") from error


def _tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's lists as tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
