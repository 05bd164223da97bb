"""A bundle's config read as data: nothing of it is evaluated, and only classes of a list are made from it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from torch import nn

from fmirnet_monai.utils import reason

TARGET = "_target_"
CARRIED = "scripts."  # where an exported bundle has the parts of this package that it needs
# of these modules any network or loss may be named
OPEN = ("torch.nn", "fmirnet_monai.networks", "fmirnet_monai.networks.blocks", "fmirnet_monai.losses")
# others by name: some of MONAI's load what an argument names, from a disk or an address
LISTED = {
    "monai.networks.nets": {
        *("AttentionUnet", "BasicUNet", "BasicUNetPlusPlus", "DynUNet", "GlobalNet", "HighResNet", "LocalNet"),
        *("MedNeXt", "RegUNet", "SegResNet", "SegResNetDS", "SegResNetVAE", "SwinUNETR", "UNETR", "UNet", "VNet"),
        *("VoxelMorph", "VoxelMorphUNet"),
    },
    "monai.losses": {
        *("BendingEnergyLoss", "DiceCELoss", "DiceFocalLoss", "DiceLoss", "DiffusionLoss", "FocalLoss"),
        *("GeneralizedDiceLoss", "GlobalMutualInformationLoss", "LocalNormalizedCrossCorrelationLoss"),
        *("MaskedLoss", "MultiScaleLoss", "SSIMLoss", "TverskyLoss"),
    },
    "monai.transforms": {
        *("AdjustContrast", "ClipIntensityPercentiles", "HistogramNormalize", "NormalizeIntensity", "ScaleIntensity"),
        *("ScaleIntensityRange", "ScaleIntensityRangePercentiles", "ThresholdIntensity"),
    },
    "fmirnet_monai.registration": {"AffineOptimizer", "DenseOptimizer"},
    "fmirnet_monai.registration.intensity": {"Percentiles", "Window"},
}
TRUST = "give --trust_bundle true if you trust whoever made the bundle"


class BundleConfig:
    """A config of a bundle, of which values are read and objects made key by key.

    Args:
        content: the config.
        source: its file, for errors.
        trusted: evaluate expressions, and make whatever it names, as MONAI does where it runs a bundle.
    """

    def __init__(self, content: Mapping[str, Any], source: Path, trusted: bool = False) -> None:
        self.content = dict(content)
        self.source = source
        self._running = ConfigParser(self.content) if trusted else None

    def __contains__(self, key: str) -> bool:
        return key in self.content

    def get(self, key: str, default: Any = None) -> Any:
        """What a key stands for: its value, with references followed and objects made.

        Args:
            key: at the top of the config.
            default: where there is no such key.

        Raises:
            ValueError: for an expression, or a class that is not in the list, unless the bundle is trusted; or when an
                object can't be made from what is said.
        """
        if key not in self.content:
            return default
        parser = self._running or ConfigParser(self._plain(key))
        try:
            return parser.get_parsed_content(key)
        except Exception as error:  # of whatever class the config makes
            raise ValueError(f"{self.source}: {key}: can't be made: {reason(_first(error))}.") from error

    def _plain(self, key: str) -> dict[str, Any]:
        """The key and those that it refers to, checked, with classes in place of their names."""
        found: dict[str, Any] = {}
        pending = [key]
        while pending:
            name = pending.pop()
            if name not in self.content:
                raise ValueError(f"{self.source}: {key}: refers to {name!r}, which the config has not.")
            if name not in found:
                found[name] = self._checked(name, self.content[name])
                pending += _references(self.content[name])
        return found

    def _checked(self, place: str, value: Any) -> Any:
        """A value without expressions, with classes in place of their names."""
        if isinstance(value, str) and value.startswith(("$", "%", "@#", "@:")):
            raise ValueError(f"{self.source}: {place}: {value[:80]!r} would have to be evaluated; {TRUST}.")
        if isinstance(value, list):
            return [self._checked(f"{place}#{index}", item) for index, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        checked = {}
        for name, item in value.items():
            if name != TARGET:
                if name.startswith("_") and name != "_desc_":
                    raise ValueError(f"{self.source}: {place}#{name}: is not read as data; {TRUST}.")
                checked[name] = self._checked(f"{place}#{name}", item)
            elif (made := listed_class(str(item))) is None:
                raise ValueError(
                    f"{self.source}: {place}: {str(item)[:80]!r} is none of the networks, losses and intensities that "
                    f"bundles may name; {TRUST}."
                )
            else:
                checked[name] = made
        return checked


def listed_class(target: str) -> type | None:
    """The network, loss, intensity or optimiser that a config names, MONAI's by short names too; None for all else."""
    if target.startswith(CARRIED):
        target = f"fmirnet_monai.{target.removeprefix(CARRIED)}"
    home, _, name = target.rpartition(".")
    listed = [module for module, names in LISTED.items() if name in names]
    for module in (*listed, *OPEN):
        found = getattr(import_module(module), name, None)
        if not inspect.isclass(found) or not (module in listed or issubclass(found, nn.Module)):
            continue
        if home in (module, found.__module__) or (not home and module.startswith("monai.")):
            return found
    return None


def _references(value: Any) -> Iterator[str]:
    """Top keys that a value refers to, as ``@window#0`` does to ``window``."""
    if isinstance(value, str) and value.startswith("@"):
        yield value[1:].replace("::", "#").split("#")[0]
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _references(item)


def _first(error: Exception) -> Exception:
    """What an error was raised from in the first place."""
    return _first(error.__cause__) if isinstance(error.__cause__, Exception) else error
