"""How often ``register`` says that direct optimisation fits better, on pairs as they are and moved further apart.

::

    python benchmarks/quick_check.py DATALIST [DATALIST ...] [--section validation] [--pairs 20]

Of each datalist's labelled pairs that many are taken, evenly; then, of a quarter of them, the moving image is turned or
shifted before. A row says of how many the check told, and how many of those told, and of those not told, had a higher
Dice by direct optimisation.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fmirnet_monai.data import load_pairs, read_pair
from fmirnet_monai.registration import Method
from fmirnet_monai.spatial import Affine, Grid, resample
from fmirnet_monai.spatial.image import on_grid

MOVES = {"as it is": (0.0, 0.0), "turned by 20°": (20.0, 0.0), "turned by 45°": (45.0, 0.0)}
MOVES |= {"shifted by a tenth": (0.0, 0.1), "shifted by a fifth": (0.0, 0.2)}


def moved(image: Tensor, degrees: float, share: float, mode: str) -> Tensor:
    """A 2-D image turned about its centre and shifted by a share of its length."""
    grid = Grid.of(image)
    to_world = grid.affine
    centre = to_world @ np.array([*(np.array(grid.shape) - 1) / 2, 1.0])
    angle, matrix = math.radians(degrees), np.eye(3)
    matrix[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    shift = to_world[:2, 0] * grid.shape[0] * share
    matrix[:2, 2] = centre[:2] - matrix[:2, :2] @ centre[:2] + shift
    values, _ = resample(image, grid, Affine(matrix), mode=mode)
    return on_grid(values, grid)


def outcomes(datalist: str, section: str, count: int, move: str) -> Iterator[tuple[bool, bool]]:
    """Whether the check told, and whether direct optimisation had the higher Dice."""
    pairs = [pair for pair in load_pairs(datalist, section) if "moving_label" in pair and "fixed_label" in pair]
    chosen = pairs[:: max(1, len(pairs) // count)][:count]
    for pair in tqdm(chosen, desc=move, unit="pair", leave=False):
        loaded = read_pair(pair).arguments()
        for key, mode in (("moving", "bilinear"), ("moving_label", "nearest")):
            loaded[key] = moved(loaded[key], *MOVES[move], mode)
        network, direct = (Method(bundle).register(**loaded) for bundle in (None, "none"))
        yield bool(network.notes), direct.metrics["dice"] > network.metrics["dice"]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datalists", nargs="+")
    parser.add_argument("--section", default="validation")
    parser.add_argument("--pairs", type=int, default=20, help="of each datalist")
    options = parser.parse_args()
    print("| pairs | n | told | direct better, where told | direct better, where not |\n|---|---|---|---|---|")
    for move, how in MOVES.items():
        count = options.pairs if how == (0.0, 0.0) else max(1, options.pairs // 4)
        found = torch.tensor([o for path in options.datalists for o in outcomes(path, options.section, count, move)])
        told, better = found.unbind(1)
        print(
            f"| {move} | {len(found)} | {told.sum()} | {(told & better).sum()} | {(~told & better).sum()} |", flush=True
        )


if __name__ == "__main__":
    main()
