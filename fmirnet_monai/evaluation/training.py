"""Train the networks of a comparison, all by their bundle's train config."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fmirnet_monai.bundle import find_bundle, variant_file
from fmirnet_monai.utils import write_text


@dataclass(frozen=True)
class TrainingJob:
    """One training run.

    Attributes:
        output_dir: folder of the run; its ``model.pt`` has the weights with the best validation metric.
        datalist: JSON datalist of pairs.
        bundle: name or folder of the bundle.
        variant: config in the bundle's ``configs/variants``, or None.
        overrides: config keys to values, laid over both, such as ``{"max_epochs": 8}``.
    """

    output_dir: Path
    datalist: str
    bundle: str = "fmirnet_chaos"
    variant: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def command(self) -> list[str]:
        """The words of ``python -m monai.bundle run``."""
        folder = find_bundle(self.bundle)
        configs = [folder / "configs" / "train.json", *([variant_file(folder, self.variant)] if self.variant else [])]
        options = {"dataset_dir": Path(self.datalist).parent, "datalist": self.datalist, "output_dir": self.output_dir}
        words = ["--config_file", str([str(path) for path in (*configs, self.output_dir / "overrides.json")])]
        words += ["--bundle_root", str(folder)]
        return ["-m", "monai.bundle", "run", *words, *(w for k, v in options.items() for w in (f"--{k}", str(v)))]


def train_networks(jobs: Sequence[TrainingJob], workers: int | None = None) -> None:
    """Run what has not been trained yet, several runs at a time, one thread each; interrupted runs go on.

    Args:
        jobs: runs, each in a folder of its own.
        workers: runs at a time, by default one per core.

    Raises:
        RuntimeError: when a run fails; the others are finished first.
    """
    failures = []
    with (
        ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool,
        tqdm(total=len(jobs), desc="training", unit="run") as progress,
    ):
        for failure in pool.map(_train, jobs):
            failures += [failure] if failure else []
            progress.update()
    if failures:
        raise RuntimeError("; ".join(failures))


def _train(job: TrainingJob) -> str:
    """Why the run failed, empty when it is done."""
    done = job.output_dir / "trained.json"
    setup = json.dumps({"variant": job.variant, "overrides": dict(job.overrides)}, indent=1) + "\n"
    if done.is_file():
        same = done.read_text() == setup
        return "" if same else f"{done}: was trained with other overrides; remove the folder to train it again"
    # only the training itself: nobody looks at the test pairs here
    write_text(
        job.output_dir / "overrides.json", json.dumps({**job.overrides, "run": ["$@train#trainer.run()"]}, indent=1)
    )
    log = job.output_dir / "train.log"
    with log.open("a") as stream:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = subprocess.run(
            [sys.executable, *job.command()], stdout=stream, stderr=stream, env=environment, check=False
        ).returncode
    if code:
        return f"{job.output_dir.name}: training ended with code {code}, see {log}"
    write_text(done, setup)
    return ""
