"""What guides do to what they don't name: half of the labels or landmarks guides, the other half is measured.

Prints, for each weight, Dice of the guiding and of the other labels, or the target registration error of the guiding
and of the other landmarks, with folding; for landmarks also with the first of the guiding ones 30 mm off::

    python benchmarks/guides.py [--labels DATALIST] [--points DATALIST] [--section validation] [--count 4]

DATALIST: of pairs, as the studies ``descent_btcv`` and ``descent_landmarks`` prepare them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fmirnet_monai.data import LoadedPair
from fmirnet_monai.registration import Guidance, Registrar, Registration
from fmirnet_monai.registration.measure import label_metrics
from fmirnet_monai.registration.result import map_points
from fmirnet_monai.spatial import Grid, resample
from fmirnet_monai.spatial.image import on_grid, plain
from fmirnet_monai.study.running import Cases

SIZE = 64  # voxels along the longest side
WEIGHTS = (0.0, 0.5, 1.0, 2.0)
WRONG = 30.0  # mm


def by_labels(pair: LoadedPair, weight: float) -> dict[str, float]:
    """Dice of every second label, which guide, and of the others."""
    assert pair.moving_label is not None and pair.fixed_label is not None
    ids = [int(i) for i in pair.fixed_label.unique() if i != 0]
    guiding = only(pair.moving_label, ids[::2]), only(pair.fixed_label, ids[::2])
    found = Registrar(affine="affine", guidance=Guidance(labels=weight)).register(pair.moving, pair.fixed, *guiding)
    values = {}
    for name, chosen in (("guiding", ids[::2]), ("others", ids[1::2])):
        warped = resample(only(pair.moving_label, chosen), found.fixed_grid, found.map, mode="nearest")[0]
        values[f"Dice, {name}"] = label_metrics(warped, only(pair.fixed_label, chosen))["dice"]
    return {**values, **shape(found)}


def by_points(pair: LoadedPair, weight: float, wrong: float) -> dict[str, float]:
    """Target registration error in mm of every second landmark, which guide, and of the others.

    The first of the guiding ones is ``wrong`` mm away from where it should be, and not measured.
    """
    assert pair.moving_points is not None
    assert pair.fixed_points is not None
    moving, fixed = pair.moving_points.positions, pair.fixed_points.positions
    given = moving[::2].copy()
    given[0, 0] += wrong
    registrar = Registrar(guidance=Guidance(points=weight))
    found = registrar.register(pair.moving, pair.fixed, moving_points=given, fixed_points=fixed[::2])
    left = np.linalg.norm(map_points(found.map, fixed) - moving, axis=1)
    told = {"told": float(len(found.notes))}
    return {"TRE, guiding": left[2::2].mean(), "TRE, others": left[1::2].mean(), **shape(found), **told}


def only(label: Tensor, ids: Sequence[int]) -> Tensor:
    """A label map with some of its labels."""
    kept = torch.isin(label, torch.tensor(ids))
    return on_grid(torch.where(kept, plain(label), 0), Grid.of(label))


def shape(found: Registration) -> dict[str, float]:
    """What tells a torn map."""
    return {name: found.after[name] for name in ("folding", "sd_log_jacobian")}


def main() -> None:
    """Print a line per guide and weight."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels")
    parser.add_argument("--points")
    parser.add_argument("--section", default="validation")
    parser.add_argument("--count", type=int, default=4)
    options = parser.parse_args()
    if options.labels:
        cases = Cases(options.labels, options.section, SIZE, options.count)
        for weight in WEIGHTS:
            say(f"labels, weight {weight}", [by_labels(cases.read(pair), weight) for pair in cases.load()])
    if options.points:
        cases = Cases(options.points, options.section, SIZE, options.count)
        for wrong in (0.0, WRONG):
            for weight in WEIGHTS:
                rows = [by_points(cases.read(pair), weight, wrong) for pair in cases.load()]
                say(f"points, weight {weight}, one {wrong:.0f} mm off", rows)


def say(head: str, rows: Sequence[dict[str, float]]) -> None:
    """Means over the pairs."""
    means = {name: np.mean([row[name] for row in rows]) for name in rows[0]}
    print(f"{head} (n = {len(rows)}): " + ", ".join(f"{name} {value:.3f}" for name, value in means.items()), flush=True)


if __name__ == "__main__":
    main()
