"""Train the networks of a comparison, all by their bundle's train config."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
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
        """The words of ``python -m monai.bundle run`` that train."""
        return self._words([], output_dir=self.output_dir)

    def evaluation_command(self, section: str) -> list[str]:
        """The words that evaluate the run's weights into :py:meth:`evaluation_dir`."""
        evaluate = find_bundle(self.bundle) / "configs" / "evaluate.json"
        options = {"weights": self.output_dir / "model.pt", "evaluation_section": section}
        return self._words([evaluate], output_dir=self.evaluation_dir(section), **options)

    def evaluation_dir(self, section: str) -> Path:
        """Folder of what an evaluation writes."""
        return self.output_dir / section

    def _words(self, configs: Sequence[Path], **options: object) -> list[str]:
        folder = find_bundle(self.bundle)
        files = [folder / "configs" / "train.json", *([variant_file(folder, self.variant)] if self.variant else [])]
        files += [self.output_dir / "overrides.json", *configs]
        options = {
            "config_file": [str(path) for path in files],
            "bundle_root": folder,
            "dataset_dir": Path(self.datalist).parent,
            "datalist": self.datalist,
            **options,
        }
        return ["-m", "monai.bundle", "run", *(w for k, v in options.items() for w in (f"--{k}", str(v)))]


def train_networks(jobs: Sequence[TrainingJob], workers: int | None = None) -> None:
    """Run what has not been trained yet, several runs at a time, one thread each; interrupted runs go on.

    Args:
        jobs: runs, each in a folder of its own.
        workers: runs at a time, by default one per core.

    Raises:
        ChildProcessError: when a run fails; the others are finished first.
    """
    _all(_train, jobs, "training", workers)


def evaluate_networks(jobs: Sequence[TrainingJob], section: str, workers: int | None = None) -> dict[Path, Path]:
    """Evaluate trained runs by their bundle's ``evaluate.json``, leaving out what has been done.

    Args:
        jobs: trained runs.
        section: of the datalist.
        workers: runs at a time, by default one per core.

    Returns:
        the folder of what was written, by the run's folder.

    Raises:
        ChildProcessError: when one fails; the others are finished first.
    """
    _all(partial(_evaluate, section=section), jobs, "evaluating", workers)
    return {job.output_dir: job.evaluation_dir(section) for job in jobs}


def _all(work: Callable[[TrainingJob], str], jobs: Sequence[TrainingJob], what: str, workers: int | None) -> None:
    """Do the work for each job, which gives why it failed, several at a time."""
    failures = []
    with (
        ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool,
        tqdm(total=len(jobs), desc=what, unit="run") as progress,
    ):
        for failure in pool.map(work, jobs):
            failures += [failure] if failure else []
            progress.update()
    if failures:
        raise ChildProcessError("; ".join(failures))


def _train(job: TrainingJob) -> str:
    """Why the run failed, empty when it is done."""
    done = job.output_dir / "trained.json"
    setup = json.dumps({"variant": job.variant, "overrides": dict(job.overrides)}, indent=1) + "\n"
    if done.is_file():
        same = done.read_text() == setup
        return "" if same else f"{done}: was trained with other overrides; remove the folder to train it again"
    # only the training itself: nobody looks at the test pairs here
    write_text(
        job.output_dir / "overrides.json",
        json.dumps({**job.overrides, "run": ["@prepare", "$@train#trainer.run()"]}, indent=1),
    )
    failure = _run(job.command(), job.output_dir / "train.log")
    if not failure:
        write_text(done, setup)
    return failure


def _evaluate(job: TrainingJob, section: str) -> str:
    """Why the evaluation failed, empty when it is done."""
    folder = job.evaluation_dir(section)
    if (folder / "summary.md").is_file():
        return ""
    return _run(job.evaluation_command(section), job.output_dir / f"{section}.log")


def _run(words: Sequence[str], log: Path) -> str:
    """Run Python with one thread, its output added to a log; why it failed, empty when it did not."""
    with log.open("a") as stream:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = subprocess.run(
            [sys.executable, *words], stdout=stream, stderr=stream, env=environment, check=False
        ).returncode
    return f"{log.parent.name}: ended with code {code}, see {log}" if code else ""
