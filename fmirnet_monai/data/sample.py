"""The sample a bundle trains on when it is given no data: made once, then found again."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import torch.distributed as dist
from tqdm import tqdm

from fmirnet_monai.utils import process_rank

from .chaos import find_chaos_cases, read_chaos_case
from .pairing import Pairing
from .phantom import write_phantom
from .prepare import write_pairs

logger = logging.getLogger(__name__)


def ensure_sample(dataset_dir: str | Path, sample_dir: str | Path, volumes: bool = False) -> None:
    """Make the generated sample when ``dataset_dir`` is the place for it and holds no datalist yet.

    Any other ``dataset_dir`` is the user's own and is left alone. Under ``torchrun`` the first process makes the
    sample and the others wait. An interrupted attempt is made again from the start.

    Args:
        dataset_dir: folder the run reads its ``datalist.json`` from.
        sample_dir: folder of the generated sample.
        volumes: for segmentation: every slice of each volume, and the whole volumes too.
    """
    folder = Path(dataset_dir)
    wanted = folder.resolve() == Path(sample_dir).resolve() and not (folder / "datalist.json").is_file()
    if wanted and process_rank() == 0:
        logger.info("no data given: generating the sample in %s", folder)
        for part in ("raw", "slices", "volumes"):
            shutil.rmtree(folder / part, ignore_errors=True)
        raw = write_phantom(folder / "raw")
        cases = tqdm(find_chaos_cases(raw), desc="slices", unit="volume")
        pairing = Pairing(r=0.2, min_label_area=0.0) if volumes else Pairing()
        read = map(read_chaos_case, cases)
        write_pairs(read, folder, pairing, volumes, name="phantom", description="generated, not a patient")
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
