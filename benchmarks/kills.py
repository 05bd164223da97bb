"""Whether a run that is killed again and again ends as one that was left alone, bit for bit.

::

    python benchmarks/kills.py --what batch [--pairs 500]
    python benchmarks/kills.py --what train [--kills 10] [--bundle fmirnet_chaos] [--epochs 24] [--amp]

A batch is ``register --datalist`` on generated pairs, killed after some new results
until it ends by itself. Training is a bundle's own on its generated sample, or on ``--dataset_dir``, made
small, killed so many times: at a random time, just after it has written ``last.pt``, or while it writes. ``kill -9``
goes in turn to the process alone and to its whole group. The exit status is 1 where results differ, files are left over
or processes outlive the one that was killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from same_results import different_files, different_training, leftovers
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from fmirnet_monai.data import ensure_sample

ROOT = Path(__file__).resolve().parent.parent
SMALL_2D = {"spatial_size": [64, 64], "network_def#channels": [8, 16]}
SMALL_3D = {"spatial_size": [24] * 3, "window_size": [24] * 3} | {
    f"network_def#{part}#channels": [4, 8] for part in ("registration", "segmentation")
}
SMALL_JOINT = {"spatial_size": [64, 64], "pixel_size": 6.0, "registration_def#channels": [4, 8], "batch_size": 4}
SMALL_JOINT |= {"registered": 2, "epoch_length": 20}  # of 40 batches that the sample has
SMALL: dict[str, tuple[str, dict[str, Any]]] = {  # a bundle's sample, and what makes its training small
    "fmirnet_chaos": ("slices", SMALL_2D),
    "fmirnet_echonet": ("echo", SMALL_2D),
    "fmirnet_universal": (
        "slices",
        {**SMALL_2D, "canvas_size": [72, 72], "window_size": [64, 64], "pairs_per_epoch": 40},
    ),
    "fmirnet_sliver": ("sliver", SMALL_3D),
    "rfcn_chaos": ("volumes", {**SMALL_JOINT, "network_def#channels": [4, 8, 8, 8, 8]}),
    "runet_chaos": ("volumes", {**SMALL_JOINT, "network_def#channels": [4, 8], "network_def#strides": [2]}),
}


@dataclass
class Killed:
    """How a run went that was killed again and again.

    Attributes:
        kills: how often.
        seconds: until it ended by itself.
        outlived: processes that were still there twenty seconds after the one that began them was killed.
        moments: what each kill was aimed at.
    """

    kills: int
    seconds: float
    outlived: int
    moments: list[str]


def start(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Begin a run in a process group of its own, its output added to a log."""
    with log.open("a") as stream:
        return subprocess.Popen(words, cwd=ROOT, stdout=stream, stderr=stream, start_new_session=True)


def finish(run: subprocess.Popen[bytes], log: Path) -> None:
    """Raises: ChildProcessError where the run failed."""
    if code := run.wait():
        raise ChildProcessError(f"ended with code {code}: {' '.join(log.read_text().splitlines()[-3:])}")


def kill(run: subprocess.Popen[bytes], whole_group: bool) -> int:
    """``kill -9``; how many processes that it began were still there after twenty seconds."""
    if whole_group:
        os.killpg(run.pid, signal.SIGKILL)
    else:
        run.kill()
    run.wait()
    deadline = time.monotonic() + 20  # one that is still starting takes some to see it
    while (left := group(run.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    return left


def group(number: int) -> int:
    """How many living processes a group has."""
    table = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in table.splitlines()]
    return sum(int(pgid) == number and not stat.startswith("Z") for pgid, stat in rows)


def killed(
    words: Sequence[str], log: Path, moment: Callable[[int], tuple[str, Callable[[], bool]] | None], poll: float
) -> Killed:
    """Run, kill and run again until it ends by itself.

    Args:
        words: of the command.
        log: for its output.
        moment: for the number of a kill, what it is aimed at and what becomes true then; None for no further kill.
        poll: seconds between two looks.
    """
    found, begin = Killed(0, 0.0, 0, []), time.monotonic()
    while True:
        run = start(words, log)
        aim = moment(found.kills)
        while run.poll() is None and not (aim and aim[1]()):
            time.sleep(poll)
        if aim is None or run.poll() is not None:
            finish(run, log)
            found.seconds = time.monotonic() - begin
            return found
        found.outlived += kill(run, whole_group=found.kills % 2 == 1)
        found.kills += 1
        found.moments.append(aim[0])
        tqdm.write(f"kill {found.kills}, {found.moments[-1]}, after {time.monotonic() - begin:.1f} s")


def after(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def write_batch(folder: Path, pairs: int, size: int = 48) -> Path:
    """A datalist of pairs of smooth random images with labels, each a little deformed."""
    rng = np.random.default_rng(0)
    items: list[dict[str, str]] = []
    for number in tqdm(range(pairs), desc="generating", unit="pair"):
        item = {"subject": f"{number:04d}"}
        noise = rng.normal(size=(size + 8, size + 8))
        for side, (x, y) in {"moving": (0, 0), "fixed": rng.integers(1, 4, 2)}.items():
            image = gaussian_filter(noise, 4)[x : x + size, y : y + size]
            for key, values in {side: 1000 * image / noise.std(), f"{side}_label": image > 0}.items():
                item[key] = f"images/{number:04d}_{key}.nii.gz"
                target = folder / item[key]
                target.parent.mkdir(parents=True, exist_ok=True)
                kind = np.uint8 if key.endswith("label") else np.float32
                nib.save(nib.Nifti1Image(values.astype(kind), np.diag([2.0, 2.0, 2.0, 1.0])), target)
        items.append(item)
    datalist = folder / "datalist.json"
    datalist.write_text(json.dumps({"test": items}))
    return datalist


def batch_words(datalist: Path, output_dir: Path) -> list[str]:
    """Of the command ``register`` on all pairs."""
    words = ["--datalist", str(datalist), "--output_dir", str(output_dir)]
    quick = ["--bundle", "fmirnet_chaos", "--refine", "0", "--report", "false"]
    return [sys.executable, "-m", "fmirnet_monai", "register", *words, *quick]


def batch(folder: Path, pairs: int, kills: int | None, seed: int) -> tuple[float, Killed, list[str]]:
    """Seconds of the batch left alone, how it went when it was killed, and what differs."""
    datalist, log = write_batch(folder, pairs), folder / "log"
    begin = time.monotonic()
    run, first = start(batch_words(datalist, folder / "alone"), log), 0.0
    with tqdm(desc="left alone", total=pairs, unit="pair") as bar:
        while run.poll() is None:
            bar.update(done(folder / "alone") - bar.n)
            first = first or (time.monotonic() - begin if bar.n else 0.0)
            time.sleep(0.05)
    finish(run, log)
    seconds, rng = time.monotonic() - begin, random.Random(seed)
    tqdm.write(f"the first result was there after {first:.1f} s")

    def moment(number: int) -> tuple[str, Callable[[], bool]] | None:
        if number == kills:
            return None
        before, late = done(folder / "killed"), rng.uniform(0, 0.5)
        wanted = before + 1 + rng.randrange(1 + pairs // 8)
        tqdm.write(f"{before} of {pairs} pairs are there")
        return "after some new results", lambda: later(done(folder / "killed") >= wanted, late)

    found = killed(batch_words(datalist, folder / "killed"), log, moment, poll=0.1)
    return seconds, found, different_files(folder / "alone", folder / "killed")


def done(folder: Path) -> int:
    """How many results a batch has."""
    return sum(1 for _ in folder.glob("[0-9]*/metrics.json"))


def training_words(bundle: str, sample: Path, output_dir: Path, **overrides: Any) -> list[str]:
    """Of a bundle's own training on a sample."""
    folder = ROOT / "bundles" / bundle
    options = {"config_file": folder / "configs" / "train.json", "bundle_root": folder, "dataset_dir": sample}
    options |= {"output_dir": output_dir, **overrides}
    return [sys.executable, "-m", "monai.bundle", "run", *(w for k, v in options.items() for w in (f"--{k}", str(v)))]


def training(
    folder: Path, bundle: str, sample: Path, kills: int, seed: int, overrides: dict[str, Any]
) -> tuple[float, Killed, list[str]]:
    """Seconds of the run left alone, how it went when it was killed, and what differs."""
    log = folder / "log"
    words = [training_words(bundle, sample, folder / name, **overrides) for name in ("alone", "killed")]
    begin = time.monotonic()
    run, first, last = start(words[0], log), 0.0, folder / "alone" / "last.pt"
    with tqdm(desc="left alone", total=overrides["max_epochs"], unit="epoch") as bar:
        before = 0
        while run.poll() is None:
            if (now := written(last)) != before:
                before = now
                first = first or time.monotonic() - begin
                bar.update()
            time.sleep(0.01)
    finish(run, log)
    seconds, rng = time.monotonic() - begin, random.Random(seed)
    tqdm.write(f"the first epoch was over after {first:.1f} s")

    def moment(number: int) -> tuple[str, Callable[[], bool]] | None:
        longest = first + (seconds - first) / (kills + 1)  # so that the epochs are enough for all kills
        return aims(folder / "killed", rng, longest)[number % 3] if number < kills else None

    found = killed(words[1], log, moment, poll=0.001)
    return seconds, found, different_training(folder / "alone", folder / "killed")


def aims(folder: Path, rng: random.Random, longest: float) -> list[tuple[str, Callable[[], bool]]]:
    """What a run is killed at: some time within so many seconds, ``last.pt`` just written, a file being written."""
    before = written(folder / "last.pt")
    file = rng.choice((".*_partial_*", ".last.pt_partial_*"))  # any, as a rule model.pt, or the one written last
    known = {path.name for path in folder.glob(file)}
    late = rng.uniform(0, 0.05)

    return [
        ("at a random time", after(rng.uniform(0, longest))),
        ("while it wrote", lambda: later(any(p.name not in known for p in folder.glob(file)), late / 20)),
        ("after last.pt was written", lambda: later(written(folder / "last.pt") != before, late)),
    ]


def later(happened: bool, seconds: float) -> bool:
    """The same, some time after it happened."""
    if happened:
        time.sleep(seconds)
    return happened


def written(path: Path) -> int:
    """When a file was last written, 0 where it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=("batch", "train"), required=True)
    parser.add_argument("--pairs", type=int, default=500, help="of the batch")
    parser.add_argument("--kills", type=int, help="default 10 of training, and of a batch until it ends by itself")
    parser.add_argument("--bundle", choices=sorted(SMALL), default="fmirnet_chaos", help="that is trained")
    parser.add_argument("--dataset_dir", type=Path, help="prepared data to train on; by default the bundle's sample")
    parser.add_argument("--epochs", type=int, default=24, help="of the training")
    parser.add_argument("--amp", action="store_true", help="train in mixed precision")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of the training")
    parser.add_argument("--work_dir", type=Path, help="empty folder that is kept; by default a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work_dir or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.what == "batch":
            seconds, found, differs = batch(folder, options.pairs, options.kills, options.seed)
            what = f"{options.pairs} pairs"
        else:
            kind, small = SMALL[options.bundle]
            overrides = {**small, "max_epochs": options.epochs, "seed": options.seed, "amp": options.amp}
            sample = options.dataset_dir or folder / "sample"
            ensure_sample(sample / "datalist.json", folder / "sample", kind)
            kills = 10 if options.kills is None else options.kills
            seconds, found, differs = training(folder, options.bundle, sample, kills, options.seed, overrides)
            what = f"{options.bundle}, {options.epochs} epochs" + (", amp" if options.amp else "")
        left = len(leftovers(folder / "killed"))
    for name in differs[:20]:
        print(f"differs: {name}")
    aimed = ", ".join(f"{found.moments.count(aim)} {aim}" for aim in dict.fromkeys(found.moments))
    print(
        "| what | left alone (s) | killed (s) | kills | processes that outlived one | left-over files | differing |\n"
        f"|{'---|' * 7}\n"
        f"| {what} | {seconds:.0f} | {found.seconds:.0f} | {found.kills} ({aimed}) | {found.outlived} | {left} | "
        f"{len(differs)} |"
    )
    sys.exit(bool(differs or left or found.outlived))


if __name__ == "__main__":
    main()
