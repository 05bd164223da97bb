"""Find the settings of each method on validation pairs, before it is compared on others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from fmirnet_monai.parallel import at_a_time
from fmirnet_monai.utils import named_device, read_json, write_text
from fmirnet_monai.workers import Workers

from .methods import Context, MethodSpec
from .running import Cases, run_case
from .training import train_networks

# what decides, in this order of preference: the first that the pairs have
CRITERIA = {"dice": 1.0, "tre_mean": -1.0, "ssim": 1.0}
FOLDING_LIMIT = 1.0  # percent of folded cells (digital) above which a trial does not win


def tune(
    cases: Cases,
    methods: Sequence[MethodSpec],
    output: str | Path,
    context: Context | None = None,
    training: Mapping[str, Any] | None = None,
    workers: Workers | None = None,
) -> dict[str, dict[str, Any]]:
    """Try every combination of each method's grid and store the best as JSON, which ``compare`` takes.

    The mean Dice decides (the mean TRE, or SSIM, where there are no labels); settings that fold more than
    ``FOLDING_LIMIT`` percent of the cells lose to those that don't. As many trials run at a time as torch has threads
    (``OMP_NUM_THREADS``), one thread each; they are stored as they are done, and started again, the search goes on.

    Args:
        cases: validation pairs, never those that are compared on.
        methods: those without a grid are left out.
        output: JSON file to write.
        context: what all methods share.
        training: config overrides of the runs that try a network's loss weights, such as ``{"max_epochs": 3}``; each
            has a folder of the context's ``models_dir``, where ``compare`` finds the winner's.
        workers: who tries, in place of processes of this computer.

    Returns:
        by method: ``settings`` of the winner, ``criterion``, and all ``trials``.

    Raises:
        ValueError: when the file holds a search on other pairs, or every trial of a method failed.
    """
    path = Path(output)
    context = context or Context()
    setup = {
        "cases": {**asdict(cases), "datalist": Path(cases.datalist).name},
        "context": {key: value for key, value in context.settings().items() if key not in ("models_dir", "device")},
    }
    content: dict[str, Any] = {**setup, "methods": {}}
    if path.is_file():
        content = read_json(path)
        if {key: content.get(key) for key in setup} != json.loads(json.dumps(setup)):
            raise ValueError(f"{path}: holds a search on other pairs or with other options; give another --output.")
    trials = [trial for spec in methods for trial in _trials(spec)]
    entries = content["methods"]
    todo = [t for t in trials if _stored(t) not in [e["settings"] for e in entries.get(t.name, {}).get("trials", [])]]
    train_networks(
        [spec.job(cases.datalist, context, training or {}) for spec in todo if spec.learned and not spec.refined]
    )

    def store(tried: tuple[str, dict[str, Any]]) -> None:
        name, trial = tried
        entry = entries.setdefault(name, {"trials": []})
        entry["trials"].append(trial)
        entry.update(_winner(entry["trials"]))
        write_text(path, json.dumps(content, indent=1) + "\n")

    located = replace(cases, datalist=str(Path(cases.datalist).absolute()))
    at_a_time(
        partial(_try, cases=located, context=context.anywhere()),
        [spec.anywhere() for spec in todo],
        named_device(context.device),
        "tuning",
        "trial",
        said=store,
        processes=True,
        workers=workers,
        folder=path.absolute().parent,
        lost=_lost,
    )
    order = [_stored(trial) for trial in trials]
    for name, entry in entries.items():
        entry["trials"].sort(key=lambda trial: order.index(trial["settings"]) if trial["settings"] in order else -1)
        if not entry["settings"]:
            raise ValueError(f"{name}: every trial failed, the first with: {entry['trials'][0].get('error')}.")
    write_text(path, json.dumps(content, indent=1) + "\n")
    return entries


def _trials(spec: MethodSpec) -> list[MethodSpec]:
    """The method with each of the settings of its grid; what it has set already is not searched."""
    trials = [replace(spec, settings={**settings, **spec.settings}) for settings in spec.grid()]
    return list({json.dumps(_stored(trial)): trial for trial in trials}.values())


def trials_table(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown table of all trials, the winners in bold."""
    lines = ["| method | settings | Dice | SSIM | digital folding (%) | seconds |", "|---|---|---|---|---|---|"]
    for name, entry in methods.items():
        for trial in entry["trials"]:
            text = ", ".join(f"{key} {value}" for key, value in trial["settings"].items())
            mark = "**" if trial["settings"] == entry["settings"] else ""
            values = (trial.get(key) for key in ("dice", "ssim", "digital_folding", "seconds"))
            cells = ("–" if value is None else f"{value:.3f}" for value in values)
            lines.append(f"| {name} | {mark}{text}{mark} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _stored(spec: MethodSpec) -> dict[str, Any]:
    """A trial's settings as JSON gives them back."""
    return json.loads(json.dumps(dict(spec.settings)))


def _try(spec: MethodSpec, cases: Cases, context: Context) -> tuple[str, dict[str, Any]]:
    """The method, and of its trial the settings and mean figures over the pairs; ``failed`` counts those that raised,
    ``error`` has the first reason.
    """
    rows, errors = [], []
    registrar = None
    for pair in cases.load():
        loaded = None
        try:
            loaded = cases.read(pair)
            registrar = registrar or spec.build(context, loaded.fixed.dim() - 1)
            rows.append(run_case(registrar, loaded)[0])
        except (ValueError, RuntimeError) as error:
            if loaded is not None and registrar is None:
                raise
            errors.append(" ".join(str(error).split()))
    means = {str(name): round(float(value), 6) for name, value in pd.DataFrame(rows).mean().items() if pd.notna(value)}
    trial = {"settings": _stored(spec), **means, "failed": len(errors), **({"error": errors[0]} if errors else {})}
    return spec.name, trial


def _lost(spec: MethodSpec, reason: str) -> tuple[str, dict[str, Any]]:
    """A trial of which nothing came."""
    return spec.name, {"settings": _stored(spec), "failed": 1, "error": reason}


def _winner(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Settings of the best trial, empty when all of them failed."""
    for criterion, sign in CRITERIA.items():
        usable = [trial for trial in trials if criterion in trial]
        if usable:
            best = max(
                usable,
                key=lambda trial: (
                    -trial["failed"],
                    trial.get("digital_folding", 0.0) <= FOLDING_LIMIT,
                    sign * trial[criterion],
                ),
            )
            return {"settings": best["settings"], "criterion": criterion, criterion: best[criterion]}
    return {"settings": {}, "criterion": "none"}
