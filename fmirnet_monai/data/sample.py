"""The sample a bundle trains on when it is given no data: made once, then found again."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist
from tqdm import tqdm

from fmirnet_monai.output import new_files
from fmirnet_monai.utils import process_rank

from .chaos import find_chaos_cases, read_chaos_case
from .echo import find_echonet_cases, write_echo_pairs
from .echo_phantom import write_echo_phantom
from .folder import read_folder_case
from .pairing import Pairing
from .phantom import write_phantom
from .prepare import DATALIST, write_pairs
from .sliver import find_sliver_cases

logger = logging.getLogger(__name__)

NAME, DESCRIPTION = "phantom", "generated, not a patient"


def _slices(folder: Path, pairing: Pairing | None = None, volumes: bool = False) -> None:
    """Liver slices in groups, from CHAOS's layout."""
    cases = find_chaos_cases(write_phantom(folder / "raw"))
    read = map(read_chaos_case, tqdm(cases, desc="slices", unit="volume"))
    write_pairs(read, folder, pairing or Pairing(), volumes, name=NAME, description=DESCRIPTION)


def _volumes(folder: Path) -> None:
    """Every slice of each volume, and the whole volumes too, for segmentation."""
    _slices(folder, Pairing(r=0.2, min_label_area=0.0), volumes=True)


def _echo(folder: Path) -> None:
    """End-diastole and end-systole, from EchoNet-Dynamic's layout."""
    cases, _ = find_echonet_cases(write_echo_phantom(folder / "raw"))
    write_echo_pairs(tqdm(cases, desc="frames", unit="clip"), folder, Pairing(), NAME)


def _sliver(folder: Path) -> None:
    """Ordered pairs of small volumes, from SLIVER07's layout."""
    raw = write_phantom(folder / "raw", shape=(80, 60, 48), spacing=(4.8, 4.8, 5.0), layout="sliver")
    cases = tqdm(find_sliver_cases(raw), desc="volumes", unit="volume")
    write_pairs(
        map(read_folder_case, cases),
        folder,
        Pairing(3, fractions=(0.5, 0.25, 0.25)),
        name=NAME,
        description=DESCRIPTION,
    )


SAMPLES: dict[str, Callable[[Path], None]] = {
    "slices": _slices,
    "volumes": _volumes,
    "echo": _echo,
    "sliver": _sliver,
}


def ensure_sample(datalist: str | Path, sample_dir: str | Path, kind: str = "slices") -> None:
    """Make the generated sample when ``datalist`` is to be that of the sample and isn't there yet.

    Any other ``datalist`` is the user's own and is left alone. Under ``torchrun`` the first process makes the
    sample and the others wait. An interrupted attempt is made again from the start.

    Args:
        datalist: that the run reads.
        sample_dir: folder of the generated sample.
        kind: ``"slices"`` of CT volumes in pairs; ``"volumes"``, every slice and the whole volumes too, for
            segmentation; ``"echo"``, two frames of echocardiograms; ``"sliver"``, pairs of CT volumes.

    Raises:
        ValueError: for another kind.
    """
    if kind not in SAMPLES:
        raise ValueError(f"kind must be one of {', '.join(SAMPLES)}, got {kind!r}.")
    file, folder = Path(datalist), Path(sample_dir)
    wanted = file.resolve() == (folder / DATALIST).resolve() and not file.is_file()
    if wanted and process_rank() == 0:
        logger.info("no data given: generating the sample in %s", folder)
        for part in ("raw", "slices", "volumes", "frames"):
            shutil.rmtree(folder / part, ignore_errors=True)
        with new_files(folder, DATALIST) as partial:
            SAMPLES[kind](partial)
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
