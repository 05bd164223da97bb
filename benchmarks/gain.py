"""What one set of weights gains over another, each in one pass on every image's own grid.

::

    python benchmarks/gain.py FROM.pt TO.pt DATALIST [DATALIST ...] [--section validation] [--bundle fmirnet_universal]
        [--overrides '{"spatial_size": [128, 128], "network_def#num_scales": 3}']

``--overrides`` are keys of the bundle's inference config for the first weights alone. Dice is the mean over the fixed
image's labels; the gain has its 95 % bootstrap interval over subjects.
"""

from __future__ import annotations

import argparse
import json

import pandas as pd
from tqdm import tqdm

from fmirnet_monai.data import load_pairs, read_pair
from fmirnet_monai.registration import Registrar
from fmirnet_monai.study.statistics import interval


def measure(registrar: Registrar, files: dict[str, str]) -> tuple[float, float]:
    """Dice and digital folding in percent."""
    metrics = registrar.register(**read_pair(files).arguments()).metrics
    return metrics["dice"], metrics["digital_folding"]


def main() -> None:
    """Print a row a datalist."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs=2)
    parser.add_argument("datalists", nargs="+")
    parser.add_argument("--section", default="validation")
    parser.add_argument("--bundle", default="fmirnet_universal")
    parser.add_argument("--overrides", type=json.loads, default={}, help="JSON, for the first weights")
    parser.add_argument("--every", type=int, default=1, help="only each so many-th pair")
    options = parser.parse_args()
    registrars = [
        Registrar.from_bundle(options.bundle, weights=weights, overrides=overrides)
        for weights, overrides in zip(options.weights, (options.overrides, {}), strict=True)
    ]
    print("| datalist | n | subjects | Dice | Dice | gain | folding (%) | folding (%) |\n" + "|---" * 8 + "|")
    for datalist in options.datalists:
        pairs = [pair for pair in load_pairs(datalist, options.section) if "fixed_label" in pair][:: options.every]
        found = [[measure(registrar, pair) for registrar in registrars] for pair in tqdm(pairs, leave=False)]
        dice, folding = (pd.DataFrame([[one[i] for one in row] for row in found]) for i in (0, 1))
        subjects = pd.Series([pair["subject"] for pair in pairs])
        low, high = interval(dice[1] - dice[0], subjects)
        means = " | ".join(f"{value:.4f}" for value in dice.mean())
        folds = " | ".join(f"{value:.4f}" for value in folding.mean())
        gain = f"{(dice[1] - dice[0]).mean():+.4f} ({low:+.4f} to {high:+.4f})"
        print(f"| {datalist} | {len(pairs)} | {subjects.nunique()} | {means} | {gain} | {folds} |", flush=True)


if __name__ == "__main__":
    main()
