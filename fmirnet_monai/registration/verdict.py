"""Whether a registration holds: a verdict from its figures, with reasons in words.

What can be known without labels is joined by logistic regression. Its weights, and where *good* ends and *failed*
begins, come from registrations of validation subjects, sound and spoilt (``benchmarks/trust.py``); how often they are
right on test subjects stands in ``docs/results/trust.md``. Facts, such as folding or a given label that fits worse than
before, count beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fmirnet_monai.utils import GUIDED

GRADES = GOOD, LOOK, FAILED = "good", "look", "failed"
LEARNT = Path(__file__).with_name("verdict.json")
FOLDING = (0.5, 5.0)  # percent, from which on a registration is to be looked at, and has failed
HEAVIEST = 3  # signs that are named where none is unusual by itself, but all together are
SMALL = 0.05  # of its volume, below which something shrinks so much that it is told
LIMITED = (
    "local misfit",
    "inverse",
    "view lost",
    "compression",
    "expansion",
    "roughness",
)  # signs that tell by themselves where they are unusual
MISFIT = 0.5  # of a sign's standard deviations beyond the mean of sound registrations, that it is named from
TOLERANCE = {"tre": 0.005}  # mm, by which a figure may be worse; of others 0.0005
ALIKE = 0.99  # correlation after registration, from which on what similarity lost may be what resampling takes
WORSE = {"dice": 0.01, "tre": 0.5}  # of overlap and mm, by which a label or landmark is worse where it has failed

SIMILARITY = ("ssim", "ncc", "nmi")
INTENSITIES = ("ssim", "ncc", "residual_99", "lncc", "lncc_10")  # figures that hold where both images show tissue alike
LITTLE = "Too little was measured to call it good."
MODALITIES = "The images are compared as of different modalities, from which the verdict hasn't learnt; look at them."

Metrics = Mapping[str, float | None]  # None of a JSON file, for NaN


@dataclass(frozen=True)
class Verdict:
    """What to make of a registration.

    Attributes:
        grade: ``good``, ``look`` (at the pictures, before it is used) or ``failed``.
        reasons: a sentence each, what weighs most first; of a good one, what is to be known all the same.
        risk: estimated probability that it is wrong, among sound and spoilt pairs as they were learnt from; what it is
            good for is to sort by. NaN where nothing was measured.
    """

    grade: str
    reasons: tuple[str, ...] = ()
    risk: float = math.nan


@dataclass(frozen=True)
class Sign:
    """Something that speaks against a registration the more, the larger it is.

    Attributes:
        value: of the metrics, NaN where it isn't known.
        reason: what to say of it, with the metrics to fill in.
    """

    value: Callable[[Metrics], float]
    reason: str


def _known(metrics: Metrics, name: str) -> float:
    value = metrics.get(name)
    return math.nan if value is None else value


def _lost(metrics: Metrics) -> float:
    return max(_known(metrics, "before_inside") - _known(metrics, "inside"), 0.0) / 100  # NaN stays


SIGNS = {
    "similarity": Sign(lambda m: 1 - _known(m, "ncc"), "The images' correlation is {ncc:.2f}"),
    "residual": Sign(
        lambda m: _known(m, "residual_99"),
        "Intensities differ by {residual_99:.2f} of their range at the 99th percentile",
    ),
    "local misfit": Sign(
        lambda m: 1 - _known(m, "lncc_10"),
        "A tenth of the structure has a squared local correlation of {lncc_10:.2f} or less",
    ),
    "gain": Sign(
        lambda m: _known(m, "before_lncc") - _known(m, "lncc"),
        "The squared local correlation went from {before_lncc:.2f} to {lncc:.2f} only",
    ),
    "inverse": Sign(
        lambda m: math.sqrt(_known(m, "inverse_misses") / 100),
        "Registered back, {inverse_misses:.0f} % of the structure ends up elsewhere",
    ),
    "not seen": Sign(
        lambda m: 1 - _known(m, "inside") / 100, "{inside:.0f} % of the fixed image is seen in the moving one"
    ),
    "view lost": Sign(_lost, "Of {before_inside:.0f} % that was seen before, {inside:.0f} % still is"),
    "compression": Sign(
        lambda m: -math.log(max(_known(m, "jacobian_p01"), 1e-3)),
        "A hundredth of the image shrinks to {jacobian_p01:.2f} of its volume or less",
    ),
    "expansion": Sign(
        lambda m: math.log(max(_known(m, "jacobian_p99"), 1e-3)),
        "A hundredth of the image grows to {jacobian_p99:.2f} times its volume or more",
    ),
    "smallest volume": Sign(
        lambda m: -math.log(max(_known(m, "jacobian_min"), 1e-3)),
        "The smallest Jacobian determinant is {jacobian_min:.2f}, where 1 keeps volume",
    ),
    "roughness": Sign(lambda m: _known(m, "sd_log_jacobian"), "Volume changes unevenly, SDlogJ {sd_log_jacobian:.2f}"),
}


@lru_cache(maxsize=1)
def learnt() -> dict[str, Any]:
    """What ``benchmarks/trust.py fit`` has found, of ``slices`` and of ``volumes``."""
    found: dict[str, Any] = json.loads(LEARNT.read_text())
    return found


def judge(metrics: Metrics, volumes: bool, modalities: bool = False) -> Verdict:
    """The verdict of a registration.

    Args:
        metrics: as in :py:class:`Registration`, or of a ``metrics.json``; what is missing says nothing.
        volumes: whether volumes were registered, not 2-D images or slices one by one.
        modalities: whether the images are of different modalities. What compares their intensities then says nothing,
            and none is *good*.
    """
    if modalities:
        metrics = {name: value for name, value in metrics.items() if name.removeprefix("before_") not in INTENSITIES}
    model = learnt()["volumes" if volumes else "slices"]
    facts, failed = _facts(metrics)
    if modalities:
        facts.append(MODALITIES)
    values = signs(metrics)
    # what is better than in most sound registrations doesn't make up for what is worse
    apart = {
        name: max(0.0, (values[name] - sign["mean"]) / sign["sd"])
        for name, sign in model["signs"].items()
        if math.isfinite(values[name])
    }
    if len(apart) < len(model["signs"]) and not modalities:
        facts.append(LITTLE)
    if not apart:
        return Verdict(FAILED if failed else LOOK, tuple(facts))
    weighed = {name: model["signs"][name]["weight"] * distance for name, distance in apart.items()}
    risk = 1 / (1 + math.exp(-model["bias"] - sum(weighed.values())))
    named = [name for name, limit in model["limits"].items() if values[name] > limit]
    if risk > model["good"]:
        heaviest = sorted(weighed, key=lambda name: -weighed[name])[:HEAVIEST]
        named += [name for name in heaviest if name not in named and (apart[name] > MISFIT or name == heaviest[0])]
    grade = FAILED if failed or risk >= model["failed"] else LOOK if risk > model["good"] or facts or named else GOOD
    if _known(metrics, "jacobian_min") < SMALL:
        named.append("smallest volume")  # common where organs slide, so that it is told and doesn't count
    return Verdict(grade, (*facts, *(f"{SIGNS[name].reason.format_map(metrics)}." for name in named)), risk)


def _facts(metrics: Metrics) -> tuple[list[str], bool]:
    """What speaks against a registration by itself, a sentence each, and whether it has failed by that."""
    facts, failed = [], False
    alike = _known(metrics, "ncc") >= ALIKE
    if _known(metrics, "inside") == 0:
        facts.append("Nothing of the fixed image is seen in the moving one.")
        failed = True
    for name in metrics:
        base = name.removeprefix(GUIDED)
        kind = base.split("_")[0]
        if kind not in (*SIMILARITY, "dice", "tre") or (alike and kind in SIMILARITY):
            continue
        before, value = _known(metrics, f"before_{base}"), _known(metrics, name)
        worse = value - before if kind == "tre" else before - value
        if worse > TOLERANCE.get(kind, 0.0005):
            facts.append(f"{_title(base)} got worse, from {before:.3f} to {value:.3f}.")
            failed |= worse > WORSE.get(kind, math.inf)
    shares = (_known(metrics, name) for name in ("folding", "digital_folding"))
    folded = max(filter(math.isfinite, shares), default=0.0)
    if folded > FOLDING[0]:
        facts.append(f"The field folds in up to {folded:.2f} % of the image, more than {FOLDING[0]} %.")
        failed |= folded > FOLDING[1]
    return facts, failed


def _title(name: str) -> str:
    """``Dice of label 7`` of ``dice_7``, ``TRE (mean)`` of ``tre_mean``, ``SSIM`` of ``ssim``."""
    kind, _, of = name.partition("_")
    if kind == "dice":
        return f"Dice of label {of}" if of else "Dice"
    of = "95th percentile" if of == "95" else of
    return f"{kind.upper()} ({of})" if of else kind.upper()


def signs(metrics: Metrics) -> dict[str, float]:
    """The value of each sign, NaN where it isn't known."""
    return {name: sign.value(metrics) for name, sign in SIGNS.items()}
