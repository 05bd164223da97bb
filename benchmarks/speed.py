"""How fast FMIRNet and its opponents, as tuned, register a pair, and what a user waits for: one run, ratios first.

::

    python benchmarks/speed.py [--sizes 128x128,…,160x224x192] [--threads 2] [--limit 600] [--output docs/results/speed]

Writes ``OUTPUT.md``, ``.json`` and ``.png``. Images are generated; every method gets the same threads, and whole slices
or volumes of the size named: intensities in, field out. What would take longer than ``--limit`` seconds, by its growth
from the size before, is left out, and so is what is not installed. Run it with nothing else running. Accuracy in the
picture is that of ``docs/results/table2.json`` and ``table6.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
SIZES = "128x128,256x256,512x512,64x64x64,96x96x96,128x128x128,160x224x192"
WINDOW = (-125.0, 275.0)
CLASSICAL = ("elastix", "syn", "demons", "greedy", "convexadam")
TUNED = {2: "ct", 3: "hippocampus"}
ONE, FAST, BATCH, REFINED, UNIVERSAL, OPTIMISE, VOXELMORPH = (
    "FMIRNet, one pass",
    "FMIRNet, fast, one pass",
    "FMIRNet, eight pairs at once",
    "FMIRNet, 30 steps of refinement",
    "fmirnet_universal, one pass",
    "direct optimisation",
    "MONAI's VoxelMorph",
)
METHODS = (ONE, FAST, BATCH, REFINED, UNIVERSAL, OPTIMISE, VOXELMORPH, *CLASSICAL)
SLOW = 10.0  # seconds, from which one repetition is enough
# rows of the tables of accuracy, by dimension, for the picture
ACCURACY = {
    2: (
        "table2",
        {
            ONE: "FMIRNet, the bundle's weights (24 epochs)",
            FAST: "FMIRNet, fast (24 epochs)",
            REFINED: "FMIRNet, the bundle's weights, refined",
        },
    ),
    3: ("table6", {ONE: "FMIRNet", REFINED: "FMIRNet, refined"}),
}
ACCURACY[2][1].update({UNIVERSAL: "fmirnet_universal", OPTIMISE: "optimise", VOXELMORPH: "voxelmorph"})
ACCURACY[3][1].update({OPTIMISE: "optimise", VOXELMORPH: "voxelmorph"})


def images(size: Sequence[int], seeds: Sequence[int] = (3, 4), slices: Sequence[int] = (20, 20)) -> list[Any]:
    """A slice or volume of each of two generated subjects, or two slices of one, in HU."""
    import numpy as np
    import torch

    from fmirnet_monai.data import phantom_volume
    from fmirnet_monai.spatial.image import Image

    found = []
    for seed, index in zip(seeds, slices, strict=True):
        shape = (*size, 40)[:3]
        volume = phantom_volume(str(seed), seed, shape, [384 / n for n in shape[:2]] + [240 / shape[2]])
        values, affine = (volume.image, volume.affine) if len(size) == 3 else (volume.image[..., index], np.eye(3))
        found.append(Image(torch.from_numpy(values.astype(np.float32))[None], affine))
    return found


def prepared(method: str, size: Sequence[int]) -> Callable[[], object]:
    """What registers a pair of that size once; ValueError where there is no such thing for that dimension."""
    import torch
    from monai.networks.nets import VoxelMorph
    from torch import nn

    from fmirnet_monai.registration import Registrar
    from fmirnet_monai.registration.intensity import Window
    from fmirnet_monai.registration.registrar import default_optimizer
    from fmirnet_monai.study.methods import Context, parse_methods

    class Pair(nn.Module):
        """MONAI's network, of a pair as one tensor."""

        def __init__(self) -> None:
            super().__init__()
            self.network = VoxelMorph(spatial_dims=len(size))

        def forward(self, pair: torch.Tensor) -> torch.Tensor:
            return self.network(pair[:, :1], pair[:, 1:])[1]

    dims = len(size)
    common: dict[str, Any] = {"affine": "off", "intensity": Window(*WINDOW)}
    if method in CLASSICAL:
        tuned = ROOT / "benchmarks" / "tuned" / f"{TUNED[dims]}.json"
        registrar = parse_methods([method], tuned)[0].build(Context(), dims)  # its window is WINDOW
    elif method == OPTIMISE:
        registrar = Registrar(None, default_optimizer(dims), spatial_dims=dims, spatial_size=max(size), **common)
    elif method == VOXELMORPH:
        registrar = Registrar(Pair(), None, spatial_dims=dims, spatial_size=max(size), **common)
    else:
        bundle = "fmirnet_universal" if method == UNIVERSAL else {2: "fmirnet_chaos", 3: "fmirnet_sliver"}[dims]
        if method in (UNIVERSAL, FAST) and dims == 3:
            raise ValueError(f"{method} is for slices")
        refine = 30 if method == REFINED else 0
        variant = "fast" if method == FAST else None
        registrar = Registrar.from_bundle(bundle, refine, variant=variant, spatial_size=max(size), **common)
    if method == BATCH:
        pairs = torch.rand(8, 2, *size)

        def predict() -> object:
            with torch.no_grad():
                return registrar.network(pairs)

        return predict
    return partial(registrar.estimate, *images(size))


def measured(work: Callable[[], object]) -> float:
    """Median seconds of five repetitions after one that warms up; of one that is slow itself."""
    seconds = []
    for _ in range(6):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
        if seconds[0] > SLOW:
            return seconds[0]
    return median(seconds[1:])


def pairs(sizes: Sequence[tuple[int, ...]], limit: float) -> Iterator[dict[str, dict[str, dict[str, float]]]]:
    """Seconds and peak MiB of each method at each size, as far as they are known, after each of them."""
    from tqdm import tqdm

    from fmirnet_monai.memory import peak_memory

    found: dict[str, dict[str, dict[str, float]]] = {method: {} for method in METHODS}
    todo = [(method, size) for size in sizes for method in METHODS]
    for method, size in (bar := tqdm(todo, unit="cell")):
        bar.set_description(f"{method}, {name(size)}")
        earlier = [
            (math.prod(size) / math.prod(other), found[method][name(other)]["seconds"])
            for other in sizes
            if len(other) == len(size) and name(other) in found[method]
        ]
        if earlier and (growth := min(earlier))[0] * growth[1] > limit:
            continue
        try:
            work = partial(prepared, method, size)
            seconds = measured(work())
            memory = peak_memory(work) if seconds < limit / 10 else None
        except (ImportError, ValueError, RuntimeError) as error:
            tqdm.write(f"{method}, {name(size)}: left out, {error}")
            continue
        cell = {"seconds": seconds / (8 if method == BATCH else 1)}
        found[method][name(size)] = cell if memory is None else {**cell, "mib": memory}
        yield found


def convolutions(sizes: Sequence[tuple[int, ...]]) -> dict[str, dict[str, float]]:
    """Of the network alone: the share of its time in convolutions, their arithmetic against a matrix product's, and by
    how many voxels bfloat16 moves the field.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile
    from torch.utils.flop_counter import FlopCounterMode

    from fmirnet_monai.registration.intensity import Window

    matrix = torch.rand(2048, 2048)
    peak = 2 * 2048**3 / measured(lambda: matrix @ matrix) / 1e9
    found = {}
    for size in sizes:
        network = prepared(ONE, size).func.__self__.network
        pair = torch.cat([Window(*WINDOW)(image) for image in images(size)])[None]
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            field = network(pair)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            moved = (network(pair).float() - field).norm(dim=1)
        with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as profiler:
            network(pair)
        events = profiler.key_averages()
        inside = sum(event.self_cpu_time_total for event in events if "conv" in event.key)
        found[name(size)] = {
            "share": inside / sum(event.self_cpu_time_total for event in events),
            "gflops": counter.get_total_flops() / 1e3 / inside,
            "peak gflops": peak,
            "bfloat16": float(moved.max()),
        }
    return found


def ssim() -> float:
    """How many times as long MONAI's SSIM loss takes as ours, volumes of 36 voxels a side, forward and backward."""
    import torch
    from monai.losses import SSIMLoss as MonaiLoss

    from fmirnet_monai.losses import SSIMLoss

    x, y = torch.rand(2, 1, 1, 36, 36, 36).unbind()
    x.requires_grad_()
    ours, theirs = (measured(lambda loss=loss: loss(x, y).backward()) for loss in (SSIMLoss(), MonaiLoss(3)))
    return theirs / ours


def shell(folder: Path, threads: int) -> dict[str, float]:
    """Seconds of whole commands on a pair of 128 x 128, from the shell, without report; the median of three."""
    from fmirnet_monai.data import write_image

    moving, fixed = (
        str(write_image(image, folder / f"{side}.nii.gz"))
        for side, image in zip(("moving", "fixed"), images((128, 128)), strict=True)
    )
    (folder / "points.csv").write_text("x,y,z\n-20,-30,0\n")
    register = ["register", "--moving", moving, "--fixed", fixed, "--report", "false", "--output_dir"]
    field = str(folder / "direct" / "displacement.nii.gz")
    program = [sys.executable, "-m", "fmirnet_monai"]
    commands = {
        "python -c 'import torch'": [sys.executable, "-c", "import torch"],
        "python -c 'import torch, monai'": [sys.executable, "-c", "import torch, monai"],
        "--help": [*program, "--help"],
        "--version": [*program, "--version"],
        "register, by fmirnet_chaos": [*program, *register, str(folder / "network"), "--bundle", "fmirnet_chaos"],
        "register, by fmirnet_universal": [*program, *register, str(folder / "universal")],
        "register, directly": [*program, *register, str(folder / "direct"), "--bundle", "none"],
        "warp": [*program, "warp", "--image", moving, "--transform", field, "--output", str(folder / "a.nii.gz")],
        "warp_points": [
            *(*program, "warp_points", "--points", str(folder / "points.csv"), "--transform", field),
            *("--output", str(folder / "b.csv")),
        ],
        "jacobian": [*program, "jacobian", "--transform", field, "--output", str(folder / "c.nii.gz")],
        "compose": [*program, "compose", "--transforms", f"{field},{field}", "--output", str(folder / "d.nii.gz")],
        "invert": [*program, "invert", "--transform", field, "--output", str(folder / "e.nii.gz")],
    }
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as an installed package, this one has its bytecode
    found = {}
    for title, command in commands.items():
        seconds = []
        for _ in range(3):
            begin = time.perf_counter()
            subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
            seconds.append(time.perf_counter() - begin)
        found[title] = median(seconds)
    timings = json.loads((folder / "direct" / "metrics.json").read_text())["seconds"]
    found["register, directly: its own work"] = sum(timings.values())
    return found


def batches(folder: Path, count: int = 110) -> dict[str, float]:
    """Pairs a second of ``register --datalist``, files to files, by ``fmirnet_chaos`` without refinement or report."""
    from fmirnet_monai.data import write_image
    from fmirnet_monai.datalist_files import register_datalist
    from fmirnet_monai.registration import Method
    from fmirnet_monai.workflow import Outputs

    found = {}
    one, two = {"seeds": (3, 3), "slices": (20, 22)}, {"seeds": (3, 4)}
    for title, pair, whole in (
        ("slices of one subject, with metrics and inverse", one, True),
        ("of two, whose quick check goes on to the end", two, True),
        ("of one, without metrics and inverse", one, False),
    ):
        files = {
            side: str(write_image(image, folder / title / f"{side}.nii.gz"))
            for side, image in zip(("moving", "fixed"), images((128, 128), **pair), strict=True)
        }
        listed = folder / title / "pairs.json"
        listed.write_text(json.dumps({"test": [files] * count}))
        method = Method("fmirnet_chaos", refine=0, checks=whole)
        register_datalist(listed, "test", folder / title, method, Outputs(report=False, inverse=whole, metrics=whole))
        ended = sorted(file.stat().st_mtime for file in (folder / title).glob("*/metrics.json"))
        begun = count // 10  # start-up aside
        found[title] = (count - 1 - begun) / (ended[-1] - ended[begun])
    return found


def name(size: Sequence[int]) -> str:
    """``128 x 128``."""
    return " x ".join(map(str, size))


def table(heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    """Markdown."""
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    return [*lines, *(f"| {row} | " + " | ".join(cells) + " |" for row, cells in rows.items()), ""]


def written(content: Mapping[str, Any]) -> str:
    """The page."""
    sizes, found, commands = content["sizes"], content["pairs"], content["shell"]

    def cells(show: Callable[[dict[str, float], str], str]) -> dict[str, list[str]]:
        return {row: [show(own[size], size) if size in own else "–" for size in sizes] for row, own in found.items()}

    def growth(own: Mapping[str, Mapping[str, float]], dims: int) -> str:
        points = [(math.prod(map(int, size.split(" x "))), own[size]["seconds"]) for size in own]
        chosen = [points[i] for i, size in enumerate(own) if size.count("x") == dims - 1]
        if len(chosen) < 2:
            return "–"
        (n, first), (m, last) = chosen[0], chosen[-1]
        return f"{math.log(last / first) / math.log(m / n):.2f}"

    torch, monai = commands["python -c 'import torch'"], commands["python -c 'import torch, monai'"]
    return "\n".join(
        [
            "# Speed",
            "",
            f"From `python benchmarks/speed.py`, one run, {content['threads']} threads for every method, "
            f"{content['machine']}. Generated images; a pair's intensities in, its field out, no affine stage. FMIRNet "
            "is `fmirnet_chaos` on slices and `fmirnet_sliver`, with its structures, on volumes; SyN, elastix, Demons, "
            "greedy and ConvexAdam are as tuned for CT slices and hippocampi. Of five repetitions the median, of what "
            f"takes longer than {SLOW:g} s one.",
            "",
            "![accuracy against time](speed.png)",
            "",
            f"Times as long as {ONE}:",
            "",
            *table(sizes, cells(lambda cell, size: f"{cell['seconds'] / found[ONE][size]['seconds']:.3g}")),
            "Seconds a pair, and how they grow: by which power of the number of voxels from the smallest size to the "
            "largest:",
            "",
            *table(
                [*sizes, "growth, 2-D", "growth, 3-D"],
                {
                    row: [*line, growth(found[row], 2), growth(found[row], 3)]
                    for row, line in cells(lambda cell, _: f"{cell['seconds']:.3g}").items()
                },
            ),
            "Peak memory in MiB beyond what the loaded program holds:",
            "",
            *table(sizes, cells(lambda cell, _: f"{cell['mib']:.0f}" if "mib" in cell else "–")),
            "The network alone, one pass, in single precision:",
            "",
            *table(
                ["time in convolutions", "GFLOP/s there", "of a matrix product's", "bfloat16 moves the field by"],
                {
                    size: [
                        f"{cell['share']:.0%}",
                        f"{cell['gflops']:.0f}",
                        f"{cell['gflops'] / cell['peak gflops']:.0%}",
                        f"{cell['bfloat16']:.2f} voxels",
                    ]
                    for size, cell in content["convolutions"].items()
                },
            ),
            "By more than 0.05 voxels it is not the same field: `register` stays in single precision.",
            "",
            "Whole commands from the shell on a pair of 128 x 128, all files but the report written:",
            "",
            *table(
                ["seconds", "times `import torch`", "times `import torch, monai`"],
                {row: [f"{s:.2f}", f"{s / torch:.2f}", f"{s / monai:.2f}"] for row, s in commands.items()},
            ),
            "`register --datalist` on such pairs by `fmirnet_chaos`, no refinement, no report, start-up aside:",
            "",
            *table(["pairs a second"], {row: [f"{rate:.1f}"] for row, rate in content["batches"].items()}),
            f"The SSIM loss of volumes, forward and backward: MONAI's takes {content['ssim']:.1f} times as long.",
            "",
        ]
    )


def draw(content: Mapping[str, Any], path: Path) -> None:
    """Dice against seconds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for axis, (dims, size, what) in zip(
        axes, ((2, "128 x 128", "CT slices, liver"), (3, "64 x 64 x 64", "hippocampus volumes")), strict=True
    ):
        file, rows = ACCURACY[dims]
        known = json.loads((RESULTS / f"{file}.json").read_text())
        for method, own in content["pairs"].items():
            row = known["rows"].get(rows.get(method, method))
            if row is None or size not in own:
                continue
            ours = method in (ONE, FAST, REFINED, UNIVERSAL, OPTIMISE)
            x, y = own[size]["seconds"], row["metrics"]["dice"]["mean"]
            axis.plot(x, y, "o", color="tab:blue" if ours else "0.5")
            axis.annotate(method, (x, y), xytext=(5, 3), textcoords="offset points", fontsize=7)
        axis.set(xscale="log", xlabel=f"seconds a pair of {size}", ylabel="Dice", title=f"{what}, n = {known['n']}")
        axis.margins(x=0.3, y=0.1)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Measure, and write page, figures and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of one registration")
    parser.add_argument("--output", type=Path, default=RESULTS / "speed")
    options = parser.parse_args()
    threads = str(options.threads)
    os.environ.update({"OMP_NUM_THREADS": threads, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": threads})
    import torch

    torch.set_num_threads(options.threads)
    sizes = [tuple(map(int, text.split("x"))) for text in options.sizes.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        commands = shell(Path(temporary), options.threads)
        rates = batches(Path(temporary))
    content = {
        "threads": options.threads,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "sizes": [name(size) for size in sizes],
        "shell": commands,
        "batches": rates,
        "ssim": ssim(),
        "convolutions": convolutions(sizes),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for content["pairs"] in pairs(sizes, options.limit):  # what is interrupted has written what it knows
        options.output.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
        options.output.with_suffix(".md").write_text(written(content))
    draw(content, options.output.with_suffix(".png"))
    print(options.output.with_suffix(".md"))


if __name__ == "__main__":
    main()
