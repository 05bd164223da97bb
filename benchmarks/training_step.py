"""What a step of a bundle's own training takes on its generated sample: the batch, forward, loss, backward, optimiser.

::

    python benchmarks/training_step.py [--bundle fmirnet_chaos] [--batch_size 4] [--against CHECKOUT]

``--against`` measures another checkout of this repository in turn with this one, three times each. Reading, validation
and the first epoch are not counted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 4


def train(folder: Path, batch_size: int, operations: int) -> float:
    """Train in this process, and give a step's median seconds; print what took most of the last epoch."""
    config = ConfigParser()
    config.read_config(folder / "configs" / "train.json")
    seconds: list[float] = []
    begin = 0.0
    profiler = profile(activities=[ProfilerActivity.CPU])

    def start() -> None:
        nonlocal begin
        begin = time.perf_counter()

    def stop(engine: Engine) -> None:
        if 1 < engine.state.epoch <= EPOCHS:
            seconds.append(time.perf_counter() - begin)

    with tempfile.TemporaryDirectory() as output_dir:
        settings = {"bundle_root": str(folder), "output_dir": output_dir, "batch_size": batch_size}
        epochs = EPOCHS + (operations > 0)
        config.update({**settings, "max_epochs": epochs, "val_interval": epochs + 1})
        config.get_parsed_content("initialize")
        trainer = config.get_parsed_content("train#trainer")
        trainer.add_event_handler(Events.GET_BATCH_STARTED, start)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, stop)
        if operations:
            trainer.add_event_handler(Events.EPOCH_STARTED(once=epochs), profiler.start)
            trainer.add_event_handler(Events.EPOCH_COMPLETED(once=epochs), profiler.stop)
        trainer.run()
    if operations:
        print(
            profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=operations, max_name_column_width=40)
        )
    return median(seconds)


def main() -> None:
    """Print seconds a step and pairs a second, and the ratio of two checkouts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="fmirnet_chaos")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--operations", type=int, default=12, help="rows of the profile")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone or not options.against:
        folder = (options.alone or ROOT) / "bundles" / options.bundle
        taken = train(folder, options.batch_size, options.operations)
        print(f"{taken:.4f} s a step, {options.batch_size / taken:.1f} pairs/s")
        return
    found: dict[Path, list[float]] = {}
    for checkout in [ROOT, options.against.resolve()] * 3:
        words = ["--bundle", options.bundle, "--batch_size", str(options.batch_size), "--operations", "0"]
        command = [sys.executable, __file__, *words, "--alone", str(checkout)]
        output = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(checkout)}, check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        found.setdefault(checkout, []).append(float(output.splitlines()[-1].split()[0]))
        print(f"{checkout}: {output.splitlines()[-1]}", flush=True)
    ours, theirs = (median(taken) for taken in found.values())
    print(f"median {ours:.4f} s against {theirs:.4f} s: {theirs / ours:.2f} times as fast")


if __name__ == "__main__":
    main()
