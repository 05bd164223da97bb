"""Bundles in forms that run elsewhere: TorchScript, ONNX, and a zip that needs MONAI but not this package."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import packages_distributions
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import save_net_with_metadata
from monai.networks import convert_to_torchscript
from monai.utils import optional_import
from torch import Tensor, nn

from fmirnet_monai.bundle import copy_bundle, find_bundle, load_network
from fmirnet_monai.utils import package_version, read_object, replacing

PACKAGE = "fmirnet_monai"
SCRIPTS = "scripts"  # MONAI's name of the folder for a bundle's own code
OPSET = 20  # the first with a 3-D GridSample
TOLERANCE = 1e-4  # voxels of a field, or units of scores; a tenth of it relative to the largest
OWN_FIELDS = {"torch", "monai", "numpy"}  # whose versions have fields of their own in the metadata
NOTE = """\
> **Self-contained form.** The parts of `fmirnet_monai` that this bundle needs lie in `scripts`: the package need not
> be installed, `configs/metadata.json` names what must be. Run MONAI's commands from inside this folder.{more}
> Commands `fmirnet …` below belong to the package.

"""
EXPORTED = " `models` also\n> has the network as TorchScript and as ONNX."
OUTSIDE = re.compile(r"\[([^]]+)\]\(\.\./\.\./[^)]*\)")  # a link from a bundle's page to what lies around the bundle
MARKS = re.compile(r"<!-- needs: .* -->\n")  # of the pages' own tests


def export_bundle(bundle: str | Path, output_dir: str | Path, trusted: bool = False) -> Path:
    """Write a bundle as one zip with code, weights, TorchScript, ONNX and checksums.

    Args:
        bundle: its name or folder.
        output_dir: folder that gets ``NAME_vVERSION.zip``, whole or not at all.
        trusted: run what the bundle's config says, see :py:func:`fmirnet_monai.bundle.read_config`.

    Returns:
        path of the zip.

    Raises:
        FileNotFoundError: when there is no such bundle, or it has no weights.
        ValueError: when an exported network does not give what the bundle's gives.
    """
    source = find_bundle(bundle).resolve()
    network = load_network(source, trusted=trusted)
    metadata = read_object(source / "configs" / "metadata.json")
    image = metadata["network_data_format"]["inputs"]["image"]
    shape = [image["num_channels"], *image["spatial_shape"]]
    with tempfile.TemporaryDirectory() as temporary:
        folder = copy_self_contained(source, temporary, EXPORTED)
        export_torchscript(network, metadata, folder / "models" / "model.ts")
        export_onnx(network, shape, folder / "models" / "model.onnx")
        check_torchscript(network, folder / "models" / "model.ts", shape)
        check_onnx(network, folder / "models" / "model.onnx", shape)
        _write_checksums(folder)
        target = Path(output_dir) / f"{source.name}_v{metadata['version']}.zip"
        with replacing(target) as partial:
            made = shutil.make_archive(str(Path(temporary) / "bundle"), "zip", temporary, source.name)
            shutil.copyfile(made, partial)
    return target


def copy_self_contained(bundle: str | Path, output_dir: str | Path, more: str = "") -> Path:
    """Copy a bundle, with the parts of this package that it needs in its ``scripts``.

    Args:
        bundle: its name or folder.
        output_dir: folder that gets a folder of the bundle's name.
        more: a sentence about the form for the top of its page.

    Returns:
        the copy's folder.

    Raises:
        as :py:func:`fmirnet_monai.bundle.copy_bundle`.
    """
    folder = copy_bundle(bundle, output_dir)
    _carry_sources(folder)
    for page in (folder / "docs").glob("*.md"):
        note = NOTE.format(more=more) if page.name == "README.md" else ""
        page.write_text(note + OUTSIDE.sub(r"\1", MARKS.sub("", page.read_text())))
    return folder


def export_torchscript(network: nn.Module, metadata: Mapping[str, Any], path: Path) -> None:
    """Script (not trace) a network, with the bundle's metadata in the file, as MONAI's ``ckpt_export`` does.

    That command runs what stands in a bundle's config; here the network is made of it already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scripted = convert_to_torchscript(network)
    save_net_with_metadata(scripted, str(path), include_config_vals=False, append_timestamp=False, meta_values=metadata)


def export_onnx(network: nn.Module, shape: Sequence[int], path: Path) -> None:
    """Write a network as ONNX, input ``image`` and output ``pred``, of any batch and spatial size that it takes itself.

    Args:
        network: in evaluation mode.
        shape: of one input, ``(C, *spatial)``; the size only serves for tracing.
        path: file to write.

    Raises:
        ValueError: without the packages of the extra ``onnx``.
    """
    _require("onnx", "onnxscript")
    example = torch.zeros(2, shape[0], *_sizes(len(shape) - 1))
    any_size = dict.fromkeys([0, *range(2, example.dim())], torch.export.Dim.DYNAMIC)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=(any_size,),
            input_names=["image"],
            output_names=["pred"],
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with this machine's paths
    with replacing(path) as partial:
        program.save(partial)


def check_torchscript(network: nn.Module, path: Path, shape: Sequence[int]) -> float:
    """Largest difference of a TorchScript file's output from the network's own; errors as in :py:func:`check_onnx`."""
    return _check(network, path, shape, torch.jit.load(path))


def check_onnx(network: nn.Module, path: Path, shape: Sequence[int]) -> float:
    """Largest difference of an ONNX file's output in onnxruntime from the network's own, over two sizes.

    Raises:
        ValueError: when it is more than rounding makes it.
    """
    _require("onnxruntime")
    runtime, _ = optional_import("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return _check(network, path, shape, lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0]))


def needed_sources(names: Iterable[str]) -> dict[str, Path]:
    """Source file of each module of this package that is needed for importing the named things, by module name.

    Args:
        names: dotted names of modules, classes or functions.
    """
    root = Path(__file__).parent
    found: dict[str, Path] = {}
    pending = list(names)
    whole = set()
    while pending:
        parts, count = pending.pop().split("."), 1
        while parts[0] == PACKAGE and count <= len(parts):
            module = ".".join(parts[:count])
            folder = root.joinpath(*parts[1:count])
            file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
            homes = _homes(folder)
            if count < len(parts):  # a name of a lazy face stands for one of a module
                parts[count:count] = homes.get(parts[count], [])
            elif module not in whole:  # a room, of which any name may be asked for
                whole.add(module)
                pending += [f"{module}.{name}" for name in homes]
            if module not in found and file.is_file():
                found[module] = file
                pending += _imports(module, file)
            count += 1
    return found


def _homes(folder: Path) -> dict[str, list[str]]:
    """Where a package's lazy face has its names from: the module of each, below the package."""
    stub = folder / "__init__.pyi"
    nodes = ast.parse(stub.read_text()).body if stub.is_file() else []
    homes = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: node.module.split(".") for node in homes if node.module for alias in node.names}


def _imports(module: str, file: Path) -> Iterator[str]:
    """Dotted names that a module's source imports anywhere, relative ones resolved."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            base = resolve_name(source, package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _carry_sources(folder: Path) -> None:
    """Put what the configs of an exported bundle name into its ``scripts`` and let them name it there."""
    configs = sorted((folder / "configs").rglob("*.json"))
    sources = needed_sources(_named("\n".join(file.read_text() for file in configs)))
    read = {data for file in sources.values() for data in file.parent.glob("*.json")}  # by the modules beside them
    stubs = [stub for file in sources.values() if (stub := file.with_suffix(".pyi")).is_file()]  # read by lazy faces
    for file in [*sources.values(), *stubs, *sorted(read)]:
        target = folder / SCRIPTS / file.relative_to(Path(__file__).parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_renamed(file.read_text()))
    for file in configs:
        file.write_text(_renamed(file.read_text()))
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    versions = {**metadata["required_packages_version"], **_required_versions(sources)}
    metadata["required_packages_version"] = {name: versions[name] for name in sorted(versions) if name != PACKAGE}
    path.write_text(json.dumps(metadata, indent=4) + "\n")


def _named(configs: str) -> set[str]:
    """What of this package configs name; of a module that they import under a name, what they ask of that one."""
    names = set(re.findall(rf"{PACKAGE}(?:\.\w+)+", configs))
    for module, alias in set(re.findall(rf"\$import ({PACKAGE}(?:\.\w+)+) as (\w+)", configs)):
        names.discard(module)
        names |= {f"{module}.{name}" for name in re.findall(rf"(?<![\w.@]){alias}\.(\w+)", configs)}
    return names


def _required_versions(sources: dict[str, Path]) -> dict[str, str]:
    """Installed version of each other package that the sources import, but those that have metadata of their own."""
    distributions = packages_distributions()
    tops = {name.split(".")[0] for module, file in sources.items() for name in _imports(module, file)}
    others = sorted(tops - set(sys.stdlib_module_names) - OWN_FIELDS - {PACKAGE})
    packages = set()
    for top in others:
        if package_version(top) != "not installed":
            packages.add(top)  # of several distributions with one module, as ITK's parts, that which has all
        elif top in distributions:
            packages.add(distributions[top][0])
    return {package: package_version(package) for package in packages}


def _renamed(text: str) -> str:
    """The text with this package's modules as modules of the folder; where the package itself is meant, it stays."""
    return re.sub(rf"\b{PACKAGE}(?=\.\w)|(?<=from ){PACKAGE}(?= import)", SCRIPTS, text)


def _write_checksums(folder: Path) -> None:
    """``SHA256SUMS`` of all files, as ``sha256sum --check`` reads it."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder)}" for file in files]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def _check(network: nn.Module, path: Path, shape: Sequence[int], exported: Callable[[Tensor], Tensor]) -> float:
    """The largest difference; ValueError when it is more than rounding makes it."""
    worst = 0.0
    for batch, extra in ((1, 0), (2, 32)):  # a multiple that any UNet takes
        image = _images(batch, shape[0], [size + extra for size in _sizes(len(shape) - 1)])
        with torch.no_grad():
            expected = network(image)
            difference = float((exported(image) - expected).abs().max())
        if not difference <= max(TOLERANCE, TOLERANCE / 10 * float(expected.abs().max())):
            raise ValueError(f"{path.name}: its output differs by {difference:.2g} from the network's own.")
        worst = max(worst, difference)
    return worst


def _sizes(dims: int) -> list[int]:
    return [64, 96] if dims == 2 else [32, 32, 64]


def _images(batch: int, channels: int, size: Sequence[int]) -> Tensor:
    """Smooth images in [0, 1], the channels of each two voxels apart, as a pair to register might be."""
    coarse = np.random.default_rng(0).random((batch, 1, *[s // 16 + 1 for s in size]), dtype=np.float32)
    mode = "bilinear" if len(size) == 2 else "trilinear"
    image = nn.functional.interpolate(torch.from_numpy(coarse), size=list(size), mode=mode)
    return torch.cat([torch.roll(image, 2 * channel, 2) for channel in range(channels)], dim=1)


def _require(*packages: str) -> None:
    for package in packages:
        if package_version(package) == "not installed":
            raise ValueError(f"{package} is not installed; ONNX files need: pip install 'fmirnet_monai[onnx]'.")
