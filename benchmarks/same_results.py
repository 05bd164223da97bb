"""What differs between the results of two runs, times aside."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tqdm import tqdm

PARTIAL = re.compile(r"\..+_partial_")  # names of what is being written


def leftovers(folder: Path) -> list[Path]:
    """What a killed run began to write and nobody removed."""
    return [path for path in folder.rglob("*") if PARTIAL.match(path.name)]


def different_files(one: Path, other: Path) -> list[str]:
    """What differs between two folders, times aside."""
    names, others = (
        {path for path in (p.relative_to(folder) for p in folder.rglob("*")) if not any(map(PARTIAL.match, path.parts))}
        for folder in (one, other)
    )
    both = tqdm(sorted(names & others), desc="comparing", unit="file")
    differ = [path for path in both if (one / path).is_file() and content(one / path) != content(other / path)]
    return [str(path) for path in [*sorted(names ^ others), *differ]]


def content(path: Path) -> Any:
    """What a file holds, without times."""
    if path.name == "metrics.json":
        return {**json.loads(path.read_text()), "seconds": None}
    if path.suffix == ".csv":
        table = pd.read_csv(path)
        return table[[name for name in table if "seconds" not in name]].to_csv()
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".json":
        return json.dumps(without_seconds(json.loads(path.read_text())))
    return path.read_bytes()


def without_seconds(found: Any) -> Any:
    """JSON without what is named so, at any depth."""
    if isinstance(found, dict):
        return {name: without_seconds(value) for name, value in found.items() if name != "seconds"}
    return found


def different_training(one: Path, other: Path) -> list[str]:
    """What differs between two runs' states, weights, tables and curves."""
    states = [torch.load(folder / "last.pt", weights_only=True) for folder in (one, other)]
    found = [f"last.pt: {name}" for name in {**states[0], **states[1]} if not same(*(s.get(name) for s in states))]
    for name in ("model.pt", "run.json", "summary.json", "cases.csv"):
        if content(one / name) != content(other / name):
            found.append(name)
    curves = [scalars(folder) for folder in (one, other)]
    again = sum(len(values) - 1 for values in curves[1].values())
    tqdm.write(f"curves: {len(curves[0])} points, of which {again} stand there again in the killed run's files")
    if {point: set(v) for point, v in curves[0].items()} != {point: set(v) for point, v in curves[1].items()}:
        found.append("curves")
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal to the last bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return bool(one == other)


def scalars(folder: Path) -> dict[tuple[str, int], list[float]]:
    """The values of TensorBoard's curves by name and step, over all files of a run."""
    found: dict[tuple[str, int], list[float]] = {}
    for path in folder.glob("events.out.tfevents*"):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            for event in events.Scalars(tag):
                found.setdefault((tag, event.step), []).append(event.value)
    return found
