"""Small things that several rooms need."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def save_checkpoint(path: Path, state: object) -> None:
    """``torch.save`` whole or not at all, so that a run killed meanwhile keeps its previous file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def best_device() -> torch.device:
    """CUDA, Apple's MPS or the CPU, whichever is there first."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def distributed_device() -> torch.device:
    """This process's own GPU under ``torchrun``, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def process_rank() -> int:
    """Number of this process among those of ``torchrun``, 0 when it runs alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
