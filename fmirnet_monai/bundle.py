"""Work on bundles as a whole."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fmirnet_monai.output import new_files
from fmirnet_monai.partial import require_outside
from fmirnet_monai.terms import tell_terms
from fmirnet_monai.utils import digest, read_object, reason, save_checkpoint

if TYPE_CHECKING:
    from fmirnet_monai.bundle_config import BundleConfig

WEIGHTS = "models/model.pt"
PACKAGE = Path(__file__).parent
COPIED = ("LICENSE", "configs/**/*", "docs/**/*", "models/*.pt")  # of a bundle, without what runs of it have written


def bundles_dir() -> Path:
    """Folder of the bundles that come with the package, of an installed one in it, of a source tree beside it."""
    packed = Path(str(resources.files(__name__.partition(".")[0]))) / "bundles"
    return packed if packed.is_dir() else PACKAGE.parent / "bundles"


def find_bundle(name: str | Path) -> Path:
    """Folder of a bundle given by its path, or by its name under ``bundles`` here or among those of the package.

    Raises:
        FileNotFoundError: when there is no such bundle.
    """
    beside = bundles_dir()
    for folder in (Path(name), Path("bundles") / name, beside / name):
        if (folder / "configs" / "inference.json").is_file():
            return folder
    known = ", ".join(sorted(f.parents[1].name for f in beside.glob("*/configs/inference.json")))
    raise FileNotFoundError(f"bundle: {name} is no bundle with a configs/inference.json; there are {known or 'none'}.")


def bundle_root(name: str) -> str:
    """Folder of the bundle that a config belongs to.

    MONAI doesn't tell a config where it lies, so that it is asked of the workflow that evaluates it.

    Args:
        name: of the bundle, looked for here and under ``bundles`` where no workflow does.

    Raises:
        FileNotFoundError: when there is no such bundle.
        PermissionError: when what runs would write its results into the installed package.
    """
    from monai.bundle import ConfigWorkflow

    callers = (frame.frame.f_locals.get("self") for frame in inspect.stack(context=0))
    workflows = [caller for caller in callers if isinstance(caller, ConfigWorkflow)]
    for workflow in workflows:
        if "@bundle_root" in str(workflow.parser.get("output_dir")):
            require_outside(workflow.config_root_path.parent)
    running = [str(workflow.config_root_path.parent) for workflow in workflows]
    for folder in (*running, ".", f"bundles/{name}"):
        if (Path(folder) / "configs" / "metadata.json").is_file():
            return folder
    return str(find_bundle(name))


def copy_bundle(bundle: str | Path, output_dir: str | Path) -> Path:
    """Copy a bundle to a folder of its name where it can be changed and trained, whole or not at all.

    Args:
        bundle: its name or folder.
        output_dir: folder that gets the copy.

    Returns:
        the copy's folder.

    Raises:
        FileNotFoundError: when there is no such bundle.
        FileExistsError: when there is such a folder already.
        OSError: when it can't be written.
    """
    source = find_bundle(bundle)
    target = Path(output_dir) / source.resolve().name
    if target.exists():
        raise FileExistsError(f"{target}: is there already; name another output_dir, or remove it.")
    with new_files(target) as partial:
        for file in (file for pattern in COPIED for file in source.glob(pattern) if file.is_file()):
            copied = partial / file.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(file.read_bytes())  # copyfile would name the source of a full disk
    return target


def read_config(
    bundle_dir: str | Path,
    name: str = "inference",
    variant: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    trusted: bool = False,
) -> BundleConfig:
    """A config of a bundle, as data.

    Args:
        bundle_dir: the bundle's folder.
        name: of the config, ``"inference"`` or ``"train"``.
        variant: name of a config in ``configs/variants`` laid over it.
        overrides: config keys to values, laid over both. Keys of either that the config has not are left out.
        trusted: run what it says, see :py:class:`BundleConfig`.

    Raises:
        FileNotFoundError: when the folder is no bundle, or has no such variant.
        ValueError: when a file is no JSON object, or a key is laid over what isn't there.
    """
    file = Path(bundle_dir) / "configs" / f"{name}.json"
    if not file.is_file():
        raise FileNotFoundError(f"bundle_dir: {bundle_dir} is no bundle, it has no configs/{name}.json.")
    from monai.bundle import ConfigParser  # takes seconds to load, and finding a bundle needs none

    from fmirnet_monai.bundle_config import BundleConfig

    parser = ConfigParser(read_object(file))
    known = set(parser.get())
    for changes in (read_object(variant_file(bundle_dir, variant)) if variant else {}, overrides or {}):
        for key, value in changes.items():
            if key.split("#")[0] in known:
                try:
                    parser[key] = value
                except (KeyError, IndexError, TypeError, ValueError) as error:
                    raise ValueError(f"{file}: has no {key} that could be set ({reason(error)}).") from error
    return BundleConfig(parser.get(), file, trusted)


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
    """The file of a bundle's published weights: ``models/VARIANT.pt`` where there is one, else its ``weights``."""
    own = Path(bundle_dir) / "models" / f"{variant}.pt"
    if own.is_file():
        return own
    weights = str(read_object(Path(bundle_dir) / "configs" / "inference.json").get("weights", WEIGHTS))
    return Path(bundle_dir) / (WEIGHTS if weights.startswith("$") else weights)  # not run, it is where they usually are


def anywhere(name: str) -> str:
    """The bundle's name for another working folder: its whole path where it lies in this one, or where it is a path."""
    folder = find_bundle(name)
    return str(folder.absolute()) if folder in (Path(name), Path("bundles") / name) else name


def content_of(bundle_dir: str | Path, variant: str | None = None) -> list[str]:
    """SHA-256 of what a bundle predicts by: its config, the variant's where one is named, and published weights."""
    folder = Path(bundle_dir)
    configs = [folder / "configs" / name for name in ("inference.json", f"variants/{variant}.json")]
    files = [*configs, published_weights(folder, variant)]
    return [digest(file) for file in files if file.is_file()]


def weights_file(weights: str | Path, bundle_root: str | Path) -> str:
    """Where weights are that a run names: a path from the bundle's folder where there is one, else from here."""
    own = Path(bundle_root) / weights
    return str(own if own.is_file() else weights)


def load_network(
    bundle_dir: str | Path,
    weights: str | Path | None = None,
    config: BundleConfig | None = None,
    variant: str | None = None,
    trusted: bool = False,
) -> torch.nn.Module:
    """The network of a bundle's ``configs/inference.json`` with weights, on the CPU and in evaluation mode.

    Args:
        bundle_dir: the bundle's folder, or its name.
        weights: file of a bare state dict; by default those published for the variant, otherwise the bundle's.
        config: as :py:func:`read_config` gave it for the variant; by default read.
        variant: name of a config in ``configs/variants``.
        trusted: of :py:func:`read_config`.

    Raises:
        FileNotFoundError: when the folder is no bundle, or the weights do not exist.
        ValueError: when the weights belong to another network, or the config is not plain data.
    """
    folder = Path(bundle_dir) if Path(bundle_dir).is_dir() else find_bundle(bundle_dir)
    config = config or read_config(folder, variant=variant, trusted=trusted)
    return load_weights(config.get("network_def"), weights or published_weights(folder, variant)).eval()


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
    tell_terms(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises KeyError, EOFError, OSError, UnpicklingError, …
        raise ValueError(
            f"weights: {path} is no file of weights or is damaged; train again or copy it again."
        ) from error
    try:
        network.load_state_dict(state)
    except Exception as error:  # of what is no state dict, whatever torch stumbles over
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
