"""Small things that several rooms need."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from fmirnet_monai.errors import lacks_space, one_line
from fmirnet_monai.partial import partial_folder, writing
from fmirnet_monai.version import __version__

GUIDED = "guided_"  # before the name of a metric: it was used as guide, and measures how closely that was followed


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file whole or not at all: the body writes the path it gets, which then takes the place of ``path``.

    That one has the same name, in a folder of its own beside it, which goes when the body fails.

    Raises:
        OSError: naming ``path``, when it can't be written.
    """
    target = Path(path)
    with writing(target), partial_folder(target) as folder:
        yield folder / target.name
        os.replace(folder / target.name, target)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text)


def save_checkpoint(path: str | Path, state: object) -> None:
    """``torch.save`` whole or not at all, so that a run killed meanwhile keeps its previous file.

    The same state gives the same bytes: given a name, torch would write it into the file, and this one is random.
    """
    with replacing(path) as partial, partial.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # as torch tells of a full disk
            if not lacks_space(error):
                raise
            raise OSError(
                f"{path}: can't be written ({reason(error)}); check the folder's rights and space."
            ) from error


def package_version(package: str) -> str:
    """Version of an installed package, ``not installed`` otherwise."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Of this package, what it computes with, and Python."""
    own = {name: package_version(name) for name in ("torch", "monai", "itk")}
    return {"fmirnet_monai": __version__, **own, "Python": platform.python_version()}


def digest(path: str | Path) -> str:
    """SHA-256 of a file, or of the files of a folder and their names."""
    target = Path(path)
    if target.is_file():
        with target.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    parts = [f"{file.relative_to(target)} {digest(file)}" for file in sorted(target.rglob("*")) if file.is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def reason(error: Exception) -> str:
    """One line of an exception's text: of ITK's many the one that says what happened, else the last."""
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = next((line for line in lines if line.startswith("ITK ERROR")), lines[-1])
    return one_line(re.sub(r"^ITK ERROR: (\w+\(0x\w+\): )?", "", said).rstrip(".")[:200])


@contextmanager
def reading(path: str | Path, text: str) -> Iterator[None]:
    """Turn whatever libraries raise about a damaged file into one line that names it, their warnings of numbers into
    nothing; what says so already stays.

    Args:
        path: that is read.
        text: of the line, with ``{}`` for what the library said.

    Raises:
        ValueError: in place of any other exception.
        PermissionError: when the file may not be read.
    """
    if Path(path).is_file():
        Path(path).open("rb").close()  # or one without rights would be taken for a damaged one
    try:
        with np.errstate(all="ignore"):
            yield
    except Exception as error:
        told = isinstance(error, ValueError | OSError) and str(error).startswith(
            (f"{path}:", f"{path}, ", f"{path}{os.sep}")
        )
        if told or (isinstance(error, FileNotFoundError) and str(path) in str(error)):
            raise
        raise ValueError(f"{path}: {text.format(reason(error))}") from error


def read_json(path: str | Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: naming the file, when it is none.
        OSError: when it can't be read.
    """
    text = Path(path).read_bytes()
    try:
        return json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {reason(error)}.") from error


def read_object(path: str | Path, expected: str = "a JSON object") -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: of the file.
        expected: what it is to hold, for errors.

    Raises:
        ValueError: naming the file, when it holds none.
        OSError: when it can't be read.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected {expected}, got {type(content).__name__}.")
    return content


def warn(text: str) -> None:
    """Warn of what lies in the user's files or settings: the text alone, no line of this package's code with it."""
    warnings.warn_explicit(text, UserWarning, filename="fmirnet_monai", lineno=1)


def best_device() -> torch.device:
    """CUDA, Apple's MPS or the CPU, whichever is there first."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def named_device(name: str) -> torch.device:
    """The device of this name; of ``auto`` the best there is here."""
    return best_device() if name == "auto" else torch.device(name)


def distributed_device() -> torch.device:
    """This process's own GPU under ``torchrun``, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def on_device(network: nn.Module, device: str | torch.device) -> nn.Module:
    """The network on a device, weights in the order that convolutions are fastest in (channels last)."""
    volumes = any(parameter.dim() == 5 for parameter in network.parameters())
    order = torch.channels_last_3d if volumes else torch.channels_last
    return network.to(device, memory_format=order)  # type: ignore[call-overload]


def process_rank() -> int:
    """Number of this process among those of ``torchrun``, 0 when it runs alone."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    return int(os.environ.get("RANK", "0"))
