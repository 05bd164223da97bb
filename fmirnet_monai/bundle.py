"""Work on bundles as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fmirnet_monai.utils import reason, save_checkpoint

if TYPE_CHECKING:
    from monai.bundle import ConfigParser


def find_bundle(name: str | Path) -> Path:
    """Folder of a bundle given by its path, or by its name under ``bundles`` here or beside the package.

    Raises:
        FileNotFoundError: when there is no such bundle.
    """
    beside = Path(__file__).parents[1] / "bundles"
    for folder in (Path(name), Path("bundles") / name, beside / name):
        if (folder / "configs" / "inference.json").is_file():
            return folder
    known = ", ".join(sorted(f.parents[1].name for f in beside.glob("*/configs/inference.json")))
    raise FileNotFoundError(f"bundle: {name} is no bundle with a configs/inference.json; there are {known or 'none'}.")


def read_inference_config(
    bundle_dir: str | Path, variant: str | None = None, overrides: Mapping[str, Any] | None = None
) -> ConfigParser:
    """The parsed ``configs/inference.json`` of a bundle.

    Args:
        bundle_dir: the bundle's folder.
        variant: name of a config in ``configs/variants`` laid over it.
        overrides: config keys to values, laid over both. Keys of either that only training knows are left out.

    Raises:
        FileNotFoundError: when the folder is no bundle, or has no such variant.
    """
    config_file = Path(bundle_dir) / "configs" / "inference.json"
    if not config_file.is_file():
        raise FileNotFoundError(f"bundle_dir: {bundle_dir} is no bundle, it has no configs/inference.json.")
    from monai.bundle import ConfigParser  # takes seconds to load, and finding a bundle needs none

    parser = ConfigParser()
    parser.read_config(config_file)
    known = set(parser.get())
    laid_over = ConfigParser.load_config_file(variant_file(bundle_dir, variant)) if variant else {}
    for changes in (laid_over, overrides or {}):
        parser.update({key: value for key, value in changes.items() if key.split("#")[0] in known})
    return parser


def variant_file(bundle_dir: str | Path, variant: str) -> Path:
    """Path of a config in ``configs/variants`` of a bundle.

    Raises:
        FileNotFoundError: when there is none of this name.
    """
    folder = Path(bundle_dir) / "configs" / "variants"
    path = folder / f"{variant}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.json")))
        raise FileNotFoundError(f"variant: {bundle_dir} has no variant {variant!r}; there are {known or 'none'}.")
    return path


def published_weights(bundle_dir: str | Path, variant: str | None = None) -> Path:
    """The file of a bundle's published weights: ``models/VARIANT.pt`` where there is one, else ``models/model.pt``."""
    models = Path(bundle_dir) / "models"
    own = models / f"{variant}.pt"
    return own if own.is_file() else models / "model.pt"


def load_network(
    bundle_dir: str | Path,
    weights: str | Path | None = None,
    config: ConfigParser | None = None,
    variant: str | None = None,
) -> torch.nn.Module:
    """The network of a bundle's ``configs/inference.json`` with weights, on the CPU and in evaluation mode.

    Args:
        bundle_dir: the bundle's folder, or its name.
        weights: file of a bare state dict; by default those published for the variant, otherwise the bundle's.
        config: as :py:func:`read_inference_config` gave it for the variant; by default read.
        variant: name of a config in ``configs/variants``.

    Raises:
        FileNotFoundError: when the folder is no bundle, or the weights do not exist.
        ValueError: when the weights belong to another network.
    """
    folder = Path(bundle_dir) if Path(bundle_dir).is_dir() else find_bundle(bundle_dir)
    parser = config or read_inference_config(folder, variant)
    path = weights or published_weights(folder, variant)
    return load_weights(parser.get_parsed_content("network_def"), path).eval()


def load_weights(network: torch.nn.Module, weights: str | Path | None) -> torch.nn.Module:
    """The network with the weights of a file, a bare state dict; as it is where there is none.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the weights belong to another network.
    """
    if weights is None:
        return network
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"weights: no such file: {path}; train the bundle first.")
    path.open("rb").close()  # or one without rights would be taken for a damaged one
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises KeyError, EOFError, OSError, UnpicklingError, …
        raise ValueError(
            f"weights: {path} is no file of weights or is damaged; train again or copy it again."
        ) from error
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"weights: {path} does not fit the network: {reason(error)}.") from error
    return network


def publish_weights(weights: str | Path, bundle_dir: str | Path, variant: str | None = None) -> Path:
    """Copy a run's weights into the bundle's ``models/model.pt``, or ``models/VARIANT.pt``, to be committed and shared.

    Training itself never writes there. Errors as in :py:func:`load_network`.

    Returns:
        path of the published file.
    """
    network = load_network(bundle_dir, weights, variant=variant)
    target = find_bundle(bundle_dir) / "models" / f"{variant or 'model'}.pt"
    save_checkpoint(target, network.state_dict())
    return target
