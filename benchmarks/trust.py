"""Measure the verdict of ``register``: pairs as they are, and spoilt in ways that registrations fail by.

::

    python benchmarks/trust.py run DATALIST [...] --section validation --output validation.jsonl
    python benchmarks/trust.py fit validation.jsonl [...] > fmirnet_monai/registration/verdict.json
    python benchmarks/trust.py tell test.jsonl [...] --figure docs/results/trust.png
    python benchmarks/trust.py uncertain DATALIST [...]

What spoils a pair is drawn by its number alone, so that two runs are the same. Started again, a run goes on where it
broke off; ``--share 0/2`` and ``--share 1/2``, each with an output of its own, share one out over two processes.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.optimize import minimize
from scipy.stats import binomtest, spearmanr
from torch import Tensor
from tqdm import tqdm

from fmirnet_monai.data import load_pairs, read_pair
from fmirnet_monai.data.pair import LoadedPair
from fmirnet_monai.registration import Method, Registration
from fmirnet_monai.registration.measure import label_metrics
from fmirnet_monai.registration.registrar import default_optimizer
from fmirnet_monai.registration.result import map_points
from fmirnet_monai.registration.verdict import FOLDING, LIMITED, judge, learnt, signs
from fmirnet_monai.spatial import Grid, resample
from fmirnet_monai.spatial.image import on_grid

Spoilt = tuple[LoadedPair, float]
KEYS = ("set", "case", "spoil", "bundle")
TRUTH = ("dice", "hd95", "assd", "tre")
SHORT = 0.1  # Dice
USUAL = 0.99  # quantile of sound registrations of pairs as they are, beyond which a volume change is told by itself
WRONG = 0.02  # of those called good, on validation pairs
BAD = 0.05  # of these, bad
SURE = 0.9  # of those called failed that are bad
RIDGE = 0.01


@dataclass(frozen=True)
class Draw:
    """What a spoil has to draw from: a generator of its own, and the pairs that its other images come from."""

    rng: np.random.Generator
    stranger: LoadedPair | None = None
    foreign: LoadedPair | None = None


def moved(pair: LoadedPair, matrix: np.ndarray) -> LoadedPair:
    """The moving side elsewhere in space, as a header says that is wrong: image, label and points."""
    image, label, points = pair.moving, pair.moving_label, pair.moving_points
    places = {"moving": _placed(image, matrix), "moving_label": None if label is None else _placed(label, matrix)}
    if points is not None:
        places["moving_points"] = replace(points, positions=points.positions @ matrix[:-1, :-1].T + matrix[:-1, -1])
    return replace(pair, **places)


def _placed(image: Tensor, matrix: np.ndarray) -> Tensor:
    grid = Grid.of(image)
    return on_grid(torch.as_tensor(image), Grid(grid.shape, matrix @ grid.affine))


def centre(image: Tensor) -> np.ndarray:
    """Middle of an image in RAS+ mm."""
    grid = Grid.of(image)
    return grid.affine[:-1, :-1] @ ((np.array(grid.shape) - 1) / 2) + grid.affine[:-1, -1]


def extent(image: Tensor) -> np.ndarray:
    """Length of an image's axes in mm."""
    grid = Grid.of(image)
    return np.array(grid.shape) * grid.spacing


def shift(pair: LoadedPair, draw: Draw) -> Spoilt:
    """By 5 to 50 % of the image's length, in any direction (of a volume of few slices, within them)."""
    lengths = extent(pair.moving)
    way = draw.rng.normal(size=len(lengths)) * (lengths > 0.4 * lengths.max())
    share = draw.rng.uniform(0.05, 0.5)
    matrix = np.eye(len(lengths) + 1)
    axes = Grid.of(pair.moving).affine[:-1, :-1]
    matrix[:-1, -1] = axes / np.linalg.norm(axes, axis=0) @ (way / np.linalg.norm(way) * share * lengths)
    return moved(pair, matrix), share


def rotation(pair: LoadedPair, draw: Draw) -> Spoilt:
    """About the middle by 10 to 180 degrees, of a volume about its third axis."""
    degrees = draw.rng.uniform(10, 180)
    grid = Grid.of(pair.moving)
    angle, turn = np.radians(degrees), np.eye(grid.dims)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    axes = grid.affine[:-1, :-1] / grid.spacing
    matrix = np.eye(grid.dims + 1)
    matrix[:-1, :-1] = axes @ turn @ np.linalg.inv(axes)
    matrix[:-1, -1] = centre(pair.moving) - matrix[:-1, :-1] @ centre(pair.moving)
    return moved(pair, matrix), degrees


def patient(pair: LoadedPair, draw: Draw) -> Spoilt:
    """The moving image of another patient of the same data set, its middle where the right one's was."""
    other = draw.stranger
    assert other is not None
    there = replace(other, fixed=pair.fixed, fixed_label=pair.fixed_label, fixed_points=pair.fixed_points)
    matrix = np.eye(Grid.of(pair.fixed).dims + 1)
    matrix[:-1, -1] = centre(pair.moving) - centre(other.moving)
    return moved(there, matrix), 1.0


def image(pair: LoadedPair, draw: Draw) -> Spoilt:
    """The moving image of another data set, its middle on the fixed one's: no label of it is comparable."""
    other = draw.foreign
    assert other is not None
    matrix = np.eye(Grid.of(pair.fixed).dims + 1)
    matrix[:-1, -1] = centre(pair.fixed) - centre(other.moving)
    alone = replace(pair, moving=other.moving, moving_label=None, moving_points=None)
    return moved(alone, matrix), 1.0


def view(pair: LoadedPair, draw: Draw) -> Spoilt:
    """The moving image cut to 35 to 80 % along an axis; labels stay whole, and are compared where both are seen."""
    grid = Grid.of(pair.moving)
    axis = int(draw.rng.choice(np.flatnonzero(np.array(grid.shape) >= 16)))
    share = draw.rng.uniform(0.35, 0.8)
    length = int(share * grid.shape[axis])
    begin = int(draw.rng.choice([0, grid.shape[axis] - length]))
    affine = grid.affine.copy()
    affine[:-1, -1] += affine[:-1, axis] * begin
    part = torch.as_tensor(pair.moving).narrow(axis + 1, begin, length).clone()
    return replace(pair, moving=on_grid(part, Grid(tuple(part.shape[1:]), affine))), share


def noise(pair: LoadedPair, draw: Draw) -> Spoilt:
    """Added to both images, 5 to 50 % of their range."""
    share = draw.rng.uniform(0.05, 0.5)
    sides = {}
    for side in ("moving", "fixed"):
        values = getattr(pair, side)
        low, high = np.percentile(np.asarray(values), (0.5, 99.5))
        drawn = torch.from_numpy(draw.rng.normal(size=tuple(values.shape)) * share * (high - low))
        sides[side] = on_grid(torch.as_tensor(values).float() + drawn.float(), Grid.of(values))
    return replace(pair, **sides), share


def contrast(pair: LoadedPair, draw: Draw) -> Spoilt:
    """The moving image's intensities, from its 0.5th to its 99.5th percentile, along one to three half waves."""
    waves = draw.rng.uniform(1, 3)
    values = torch.as_tensor(pair.moving).float()
    low, high = np.percentile(values.numpy(), (0.5, 99.5))
    scaled = ((values - low) / (high - low)).clamp(0, 1)
    curved = (0.5 + 0.5 * torch.cos(np.pi * waves * scaled)) * (high - low) + low
    return replace(pair, moving=on_grid(curved, Grid.of(pair.moving))), waves


SPOILS: dict[str, Callable[[LoadedPair, Draw], Spoilt]] = {
    "none": lambda pair, draw: (pair, 0.0),
    **{spoil.__name__: spoil for spoil in (shift, rotation, patient, image, view, noise, contrast)},
    "stopped": lambda pair, draw: (pair, float(draw.rng.integers(1, 8))),  # so many steps a level
}


def register(pair: LoadedPair, spoil: str, severity: float, bundle: str | None) -> Registration:
    """By the method that ``register`` takes, or direct optimisation; one that stops early where that is the spoil."""
    method = Method(bundle=bundle, progress=False)
    if spoil != "stopped":
        return method.register(**pair.arguments())
    registrar = method.registrar(pair.moving, pair.fixed)
    levels = 2 if registrar.spatial_dims == 2 else 3
    stopped = default_optimizer(registrar.spatial_dims, starts=(), iterations=(int(severity),) * levels)
    return replace(registrar, network=None, optimizer=stopped, structures=None, rival=None).register(**pair.arguments())


def registrations(options: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Callable[[], Registration]]]:
    """What names each case, and what registers it; ``severity`` is added then."""
    foreign = load_pairs(options.foreign, options.section) if options.foreign else []
    for datalist in options.datalists:
        pairs = load_pairs(datalist, options.section)
        chosen = [pairs[i] for i in spread(len(pairs), options.count)]
        for bundle, (spoil, apply) in product(options.bundles.split(","), SPOILS.items()):
            if (spoil == "image" and not foreign) or (spoil == "stopped" and bundle != "none"):
                continue
            for number in range(len(chosen)) if spoil == "none" else spread(len(chosen), options.spoilt):
                pair = chosen[number]
                subject = pair["subject"] if isinstance(pair["subject"], str) else "+".join(pair["subject"])
                row = {"set": Path(datalist).parent.name, "case": number, "subject": subject, "spoil": spoil}
                row["bundle"] = bundle
                strangers = [other for other in chosen if other["subject"] != pair["subject"]]
                if spoil == "patient" and ("+" in subject or not strangers):
                    continue  # pairs of different subjects are such already
                yield row, partial(spoilt_registration, row, pair, apply, strangers, foreign)


def spoilt_registration(
    row: dict[str, Any], pair: dict[str, Any], apply: Any, strangers: list[Any], foreign: list[Any]
) -> Registration:
    """Spoil a pair, by numbers drawn for it alone, and register it."""
    rng = np.random.default_rng(zlib.crc32(" ".join(str(row[key]) for key in KEYS).encode()))
    drawn = {
        name: read_pair(others[rng.integers(len(others))]) if row["spoil"] == spoil else None
        for name, spoil, others in (("stranger", "patient", strangers), ("foreign", "image", foreign))
    }
    loaded, row["severity"] = apply(read_pair(pair), Draw(rng, **drawn))
    return register(loaded, row["spoil"], row["severity"], None if row["bundle"] == "default" else row["bundle"])


def spread(total: int, count: int) -> list[int]:
    """So many of the first ``total`` numbers, evenly."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()


def figures(result: Registration, spoil: str) -> dict[str, float]:
    """The metrics, whose labels are compared where both maps lead into the moving image if that was cut."""
    others = sum(seconds for stage, seconds in result.timings.items() if stage != "verdict")
    found = {**result.metrics, "voxel": float(max(result.fixed_grid.spacing)), "volumes": result.volumes}
    found["share"] = result.timings["verdict"] / others
    if spoil == "view" and result.moving_label is not None and result.fixed_label is not None:
        grid, both = result.fixed_grid, (result.inside & result.unregistered[1]).int()
        place = partial(resample, result.moving_label, grid, mode="nearest")
        labels = (torch.as_tensor(label) * both for label in (result.fixed_label, place(result.map)[0], place()[0]))
        fixed, after, before = (on_grid(label, grid) for label in labels)
        found |= label_metrics(after, fixed)
        found |= {f"before_{name}": value for name, value in label_metrics(before, fixed).items()}
    return found


def run(options: argparse.Namespace) -> None:
    """Register all that is not in the output yet."""
    part, parts = (int(number) for number in options.share.split("/"))
    output = Path(options.output)
    done = {tuple(row[key] for key in KEYS) for row in read(output)} if output.exists() else set()
    todo = [item for i, item in enumerate(registrations(options)) if i % parts == part]
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("a") as file:
        for row, work in tqdm(todo, desc=output.stem, unit="pair"):
            if tuple(row[key] for key in KEYS) in done:
                continue
            try:
                result = work()
                row |= {"method": result.settings["method"], **figures(result, row["spoil"])}
            except ValueError as error:  # no overlap, nothing that both images show
                row["error"] = str(error)
            file.write(json.dumps(row) + "\n")
            file.flush()


def read(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a run."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def frame(paths: list[str]) -> pd.DataFrame:
    """Rows of runs with what is true of them, by labels and landmarks.

    ``wrong``: Dice or HD95 worse than before, by more than what an outline drawn elsewhere within a voxel changes
    (0.01; a voxel), a mean landmark error above two voxels and 3 mm, or an image of something else; ``strictly``
    without these allowances, ``worse`` without HD95, which rises where a part of an organ that only one slice shows
    stays, however well the rest fits. ``short``: a Dice more than 0.1 below what the same pair has unspoilt, though
    better than before. ``bad``: wrong or short. Pairs whose two slices have one outline, copied, are left out.
    """
    rows = pd.DataFrame([row for path in paths for row in read(path) if "error" not in row])
    rows = rows.reindex(columns=[*dict.fromkeys([*rows.columns, "tre_mean", "dice", "hd95"])])
    copied = rows[(rows.spoil == "none") & (rows.before_hd95 == 0)]
    keys = [tuple(key) for key in copied[["set", "case"]].to_numpy()]
    rows = rows[[tuple(key) not in keys for key in rows[["set", "case"]].to_numpy()]]
    unspoilt = rows[rows.spoil == "none"].set_index(["set", "case", "bundle"])["dice"]
    own = unspoilt.reindex(pd.MultiIndex.from_frame(rows[["set", "case", "bundle"]])).to_numpy()
    lost = (rows.tre_mean > np.maximum(2 * rows.voxel, 3.0)) | (rows.spoil == "image")
    rows["strictly"] = (rows.dice < rows.before_dice) | (rows.hd95 > rows.before_hd95) | lost
    rows["worse"] = (rows.dice < rows.before_dice - 0.01) | lost
    rows["wrong"] = rows.worse | (rows.hd95 > rows.before_hd95 + rows.voxel)
    rows["short"] = (rows.dice < own - SHORT) & ~rows.wrong
    rows["bad"] = rows.wrong | rows.short
    return rows


def blind(rows: pd.DataFrame) -> list[dict[str, float]]:
    """The metrics of each row without those of labels and landmarks."""
    known = rows.select_dtypes("number").drop(columns=["case", "severity"])
    known = known[[name for name in known if not name.removeprefix("before_").startswith(TRUTH)]]
    return [{str(name): value for name, value in row.items() if np.isfinite(value)} for row in known.to_dict("records")]


def fit(options: argparse.Namespace) -> None:
    """Print what the verdict learns of a run, for ``fmirnet_monai/registration/verdict.json``."""
    rows = frame(options.runs)
    print(
        json.dumps(
            {kind: fitted(rows[rows.volumes == (kind == "volumes")]) for kind in ("slices", "volumes")}, indent=1
        )
    )


def fitted(rows: pd.DataFrame) -> dict[str, Any]:
    """Weights, that are not negative, and limits, of one kind of registration."""
    values = pd.DataFrame([signs(metrics) for metrics in blind(rows)])
    bad = rows.bad.to_numpy()
    mean, sd = values[~bad].mean(), values[~bad].std()
    apart = ((values - mean) / sd).fillna(0.0).clip(lower=0.0)
    bias, weights = regression(apart.to_numpy(), bad)
    risk = 1 / (1 + np.exp(-(bias + apart.to_numpy() @ weights)))
    limits = values.loc[~bad & (rows.spoil == "none").to_numpy(), list(LIMITED)].quantile(USUAL)
    usual = (
        ~(values[list(LIMITED)] > limits).any(axis=1)
        & (rows[["folding", "digital_folding"]].max(axis=1) <= FOLDING[0]).to_numpy()
    )
    order = np.argsort(risk)
    counted = usual.to_numpy()[order]
    wrong = rows.wrong.to_numpy()
    called = np.maximum(np.cumsum(counted), 1)
    shares = [np.cumsum(part[order] & counted) / called for part in (wrong, bad)]
    allowed = (shares[0] <= WRONG) & (shares[1] <= BAD)
    good = float(risk[order][np.flatnonzero(allowed).max()])
    surely = np.cumsum(bad[order][::-1]) / np.arange(1, len(order) + 1)
    failed = float(risk[order][::-1][np.flatnonzero(surely >= SURE).max()])
    found = {
        name: {"mean": mean[name], "sd": sd[name], "weight": weight}
        for name, weight in zip(values, weights, strict=True)
        if weight > 0
    }
    rounded = {name: {key: float(f"{value:.4g}") for key, value in sign.items()} for name, sign in found.items()}
    usual_at_most = {name: float(f"{value:.4g}") for name, value in limits.items()}
    return {
        "bias": round(float(bias), 4),
        "good": round(good, 4),
        "failed": round(max(good, failed), 4),
        "signs": rounded,
        "limits": usual_at_most,
    }


def regression(values: np.ndarray, bad: np.ndarray) -> tuple[float, np.ndarray]:
    """Bias and weights, at least 0, of a logistic regression with a small penalty on the weights' squares."""

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        score = parameters[0] + values @ parameters[1:]
        apart = 1 / (1 + np.exp(-score)) - bad
        value = float((np.logaddexp(0, score) - bad * score).mean() + RIDGE * (parameters[1:] ** 2).sum() / 2)
        return value, np.r_[apart.mean(), values.T @ apart / len(bad) + RIDGE * parameters[1:]]

    bounds = [(None, None), *[(0.0, None)] * values.shape[1]]
    found = minimize(loss, np.zeros(len(bounds)), jac=True, bounds=bounds, method="L-BFGS-B").x
    return float(found[0]), found[1:]


def tell(options: argparse.Namespace) -> None:
    """Print how often the verdict is right: by set, by spoil, and along its threshold."""
    rows = frame(options.runs)
    verdicts = [judge(metrics, bool(volumes)) for metrics, volumes in zip(blind(rows), rows.volumes, strict=True)]
    rows["grade"], rows["risk"] = [v.grade for v in verdicts], [v.risk for v in verdicts]
    by_risk = [v.risk <= threshold(volumes) for v, volumes in zip(verdicts, rows.volumes, strict=True)]
    rows["kept"] = (rows.grade == "good") | ~np.array(by_risk)  # by what tells by itself
    natural = rows[rows.spoil == "none"]
    print("### Pairs as they are\n")
    print(summary(natural.groupby(["set", "bundle"])))
    print("\n### Spoilt pairs\n")
    print(summary(rows.groupby("spoil")))
    print("\n### All\n")
    print(summary(rows.groupby("volumes")))
    print("\n### Along the threshold\n")
    print(along(rows))
    print(f"\nThe verdict took {100 * rows.share.median():.0f} % of the rest of the registration (median), ", end="")
    print(f"{100 * rows.share.quantile(0.95):.0f} % at the 95th percentile.")
    if options.figure:
        draw(rows, options.figure)


def threshold(volumes: bool) -> float:
    """Up to which risk a registration is good."""
    return float(learnt()["volumes" if volumes else "slices"]["good"])


def summary(groups: Any) -> str:
    """Markdown: how many of each group are sound, called what, and wrong where called good."""
    heads = ["", "n", "sound", "sound called good", "bad called good", "of good, wrong (95 % interval)"]
    heads += ["without allowance", "of good, Dice or TRE worse", "bad, of those called failed"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, rows in groups:
        title = ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)
        sound, bad = rows[~rows.bad], rows[rows.bad]
        good, failed = rows[rows.grade == "good"], rows[rows.grade == "failed"]
        cells = [
            share((sound.grade == "good").sum(), len(sound)),
            share((bad.grade == "good").sum(), len(bad)),
            interval(good.wrong.sum(), len(good)),
            f"{good.strictly.sum()}",
            interval(good.worse.sum(), len(good)),
            f"{failed.bad.sum()} of {len(failed)}",
        ]
        lines.append(f"| {title} | {len(rows)} | {len(sound)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def along(rows: pd.DataFrame) -> str:
    """Markdown: what another threshold than the verdict's would give."""
    lines = [
        "| risk at most, times the threshold | sound called good | of good, wrong | bad called good |",
        "|---|---|---|---|",
    ]
    for factor in (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0):
        limit = np.array([threshold(volumes) * factor for volumes in rows.volumes])
        good = rows[(rows.risk <= limit) & rows["kept"]]
        lines.append(
            f"| {factor:g} | {share((~good.bad).sum(), (~rows.bad).sum())} | {interval(good.wrong.sum(), len(good))} "
            f"| {share(good.bad.sum(), rows.bad.sum())} |"
        )
    return "\n".join(lines)


def draw(rows: pd.DataFrame, path: str) -> None:
    """The curve: what is called good, of sound and of bad registrations, along the threshold."""
    figure, axes = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for volumes, title in ((False, "images and slices"), (True, "volumes")):
        part = rows[(rows.volumes == volumes) & (rows["kept"])]
        whole = rows[rows.volumes == volumes]
        if not len(whole):
            continue
        limits = np.sort(part.risk.unique())
        bad, sound = (
            np.searchsorted(np.sort(part.risk[part.bad == kind]), limits, side="right")
            / max(1, (whole.bad == kind).sum())
            for kind in (True, False)
        )
        (line,) = axes.plot(100 * bad, 100 * sound, label=f"{title}, n = {len(whole)}")
        at = np.searchsorted(limits, threshold(volumes), side="right") - 1
        axes.plot(100 * bad[at], 100 * sound[at], "o", color=line.get_color())
    axes.set(xlabel="of bad registrations, called good (%)", ylabel="of sound ones, called good (%)", ylim=(0, 101))
    axes.set_title("the verdict on test subjects; dots: its threshold")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def uncertain(options: argparse.Namespace) -> None:
    """Print how the local uncertainty goes with the true error, at landmarks or at the outlines of labels."""
    for datalist in options.datalists:
        pairs = load_pairs(datalist, options.section)
        method = Method(None if options.bundle == "default" else options.bundle, progress=False, uncertainty=True)
        found = []
        for number in tqdm(spread(len(pairs), options.count), unit="pair"):
            loaded = read_pair(pairs[number])
            result = method.register(**loaded.arguments())
            assert result.checks.uncertainty is not None
            where, errors = at_landmarks(result) if loaded.fixed_points is not None else at_outlines(result)
            values = resample(result.checks.uncertainty[None], Grid.of(result.fixed), grid=result.fixed_grid)[0][0]
            found.append((float(spearmanr(values[where].numpy(), errors).statistic), np.median(errors), len(errors)))
        rank, error, count = (np.array(column) for column in zip(*found, strict=True))
        low, middle, high = np.nanquantile(rank, (0.25, 0.5, 0.75))
        print(
            f"| {Path(datalist).parent.name}, {result.settings['method']} | {len(rank)} | {count.mean():.0f} "
            f"| {np.median(error):.2f} | {middle:.2f} ({low:.2f} to {high:.2f}) | {int((rank > 0).sum())} |"
        )


def at_landmarks(result: Registration) -> tuple[tuple[Tensor, ...], np.ndarray]:
    """Voxels of the fixed image's landmarks, and by how many mm the map misses the moving ones."""
    points = np.asarray(result.fixed_points)
    errors = np.linalg.norm(map_points(result.map, points) - np.asarray(result.moving_points), axis=1)
    voxels = result.fixed_grid.to_voxel(points).round().astype(int).clip(0, np.array(result.fixed_grid.shape) - 1)
    return tuple(torch.from_numpy(column) for column in voxels.T), errors


def at_outlines(result: Registration) -> tuple[tuple[Tensor, ...], np.ndarray]:
    """Voxels on the outlines of the fixed image's labels, and how far the warped label's outline lies, in mm."""
    fixed, warped = (np.asarray(label)[0] for label in (result.fixed_label, result.warped_label))
    voxels, errors = [], []
    for label in np.unique(fixed[fixed != 0]):
        own, other = (mask & ~binary_erosion(mask) for mask in (fixed == label, warped == label))
        if other.any():
            voxels.append(np.argwhere(own))
            errors.append(distance_transform_edt(~other, sampling=result.fixed_grid.spacing)[own])
    return tuple(torch.from_numpy(column) for column in np.concatenate(voxels).T), np.concatenate(errors)


def share(part: int, whole: int) -> str:
    """``62 of 80 (78 %)``."""
    return f"{part} of {whole} ({100 * part / max(1, whole):.0f} %)"


def interval(part: int, whole: int) -> str:
    """A share with Wilson's interval."""
    if not whole:
        return "–"
    low, high = (100 * bound for bound in binomtest(int(part), int(whole)).proportion_ci(method="wilson"))
    return f"{part} of {whole}, {100 * part / whole:.1f} % ({low:.1f} to {high:.1f})"


def main() -> None:
    """Run, fit or tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("run", help="register pairs, as they are and spoilt")
    command.add_argument("datalists", nargs="+")
    command.add_argument("--section", default="validation")
    command.add_argument("--count", type=int, default=60, help="pairs of each datalist, evenly")
    command.add_argument("--spoilt", type=int, default=20, help="of these, that each spoil is tried on")
    command.add_argument("--bundles", default="default,none")
    command.add_argument("--foreign", help="datalist of other images")
    command.add_argument("--share", default="0/1")
    command.add_argument("--output", required=True)
    command.set_defaults(work=run)
    for work, what in ((fit, "print what the verdict learns of runs"), (tell, "print how often it is right")):
        command = commands.add_parser(work.__name__, help=what)
        command.add_argument("runs", nargs="+")
        command.set_defaults(work=work)
    command.add_argument("--figure", help="PNG of the curve to write")
    command = commands.add_parser("uncertain", help="print how the local uncertainty goes with the true error")
    command.add_argument("datalists", nargs="+")
    command.add_argument("--section", default="test")
    command.add_argument("--count", type=int, default=40, help="pairs of each datalist, evenly")
    command.add_argument("--bundle", default="default")
    command.set_defaults(work=uncertain)
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
