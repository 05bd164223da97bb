"""A whole table from raw data: prepare, tune, train, compare. Every step is left out where it is done already."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fmirnet_monai.utils import write_text

from .compare import Cases, compare
from .methods import Context, MethodSpec, read_tuned
from .training import train_networks
from .tune import trials_table, tune

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study:
    """A JSON file in ``benchmarks`` that says how a table is made.

    Its entry ``data`` names another JSON file beside it, with the fields that all studies of one data set share.

    Attributes:
        file: the JSON file.
        title: of the table.
        prepare: commands of this package that write the data, as lists of words; ``{source}`` stands for the folder of
            the raw data sets, ``{work}`` for that of the results. One whose ``--output_dir`` (or ``--output``) exists
            is left out.
        datalist: of the pairs, below the working folder.
        methods: rows, each the fields of :py:class:`MethodSpec`; the first is the one others are tested against.
        cases: further fields of :py:class:`Cases`.
        context: further fields of :py:class:`Context`.
        models: folder of the training runs, below the working folder; studies of one data set share it.
        training_datalist: of the pairs that the networks learn from, below the working folder, if not ``datalist``.
        training: config overrides that all networks share, in tuning too: the winner's run is the one compared.
        tuned: JSON file of tuned settings beside ``file``; made where it is not there.
        borrowed: JSON files of settings tuned on other pairs, for the methods that are not tuned on these.
        tuning: ``methods`` to tune, each a name or the fields of :py:class:`MethodSpec` with settings that are not
            searched; ``count`` of pairs.
    """

    file: Path
    title: str
    datalist: str
    methods: Sequence[Mapping[str, Any]]
    prepare: Sequence[Sequence[str]] = ()
    cases: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    models: str = "models"
    training_datalist: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    tuned: str | None = None
    borrowed: Sequence[str] = ()
    tuning: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> Study:
        """Read a study.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when it is not JSON with these fields.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"study: no such file: {path}.")
        try:
            content = json.loads(file.read_text())
            data = json.loads((file.parent / content.pop("data")).read_text())
            return cls(file, **{**data, **content})
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise ValueError(f"study: {path} is no study: {error}.") from error


def run_study(
    path: str | Path, source_dir: str | Path, work_dir: str | Path, results_dir: str | Path | None = None
) -> str:
    """Make the table of a study; started again, it goes on where it broke off.

    Args:
        path: JSON file of the study.
        source_dir: folder of the raw data sets.
        work_dir: folder for data, runs, cases and figures.
        results_dir: folder that gets the table as Markdown, CSV and JSON, and the trials of the tuning; no images.

    Returns:
        the Markdown table.

    Raises:
        FileNotFoundError: when the study or its data do not exist.
        ValueError: when a step fails; the message names the command.
    """
    study, work = Study.read(path), Path(work_dir)
    if not Path(source_dir).is_dir():
        raise FileNotFoundError(f"source_dir: no such folder: {source_dir}; give the folder of the raw data sets.")
    _prepare(study, Path(source_dir), work)
    datalist = str(work / study.datalist)
    context = replace(Context(**study.context), models_dir=str(work / study.models))
    cases = Cases(datalist, **study.cases)
    settings: dict[str, dict[str, Any]] = {}
    for name in study.borrowed:
        settings |= read_tuned(study.file.parent / name)
    if study.tuned:
        tuned = study.file.parent / study.tuned
        if study.tuning:
            specs = [MethodSpec(**({"name": row} if isinstance(row, str) else row)) for row in study.tuning["methods"]]
            validation = replace(cases, section="validation", count=study.tuning.get("count", 40))
            found = tune(validation, specs, tuned, context, study.training)
            if results_dir:
                target = Path(results_dir) / f"{tuned.stem}_tuning.md"
                write_text(target, f"# Tuning, {study.title}\n\n{trials_table(found)}")
        settings |= read_tuned(tuned)
    methods = [_method(row, settings) for row in study.methods]
    learnt_from = str(work / (study.training_datalist or study.datalist))
    jobs = [spec.job(learnt_from, context, study.training) for spec in methods if spec.learned]
    train_networks(list({job.output_dir: job for job in jobs}.values()))
    folder = work / study.file.stem
    text = compare(cases, methods, folder, context, study.title, memory=True)
    if results_dir:
        for suffix in (".md", ".csv", ".json"):
            Path(results_dir).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / f"comparison{suffix}", Path(results_dir) / f"{study.file.stem}{suffix}")
    return text


def _method(row: Mapping[str, Any], tuned: Mapping[str, Mapping[str, Any]]) -> MethodSpec:
    """A row of the study; what it sets itself goes before what tuning found."""
    spec = MethodSpec(**row)
    found = dict(tuned.get(spec.name, {}))
    if spec.refined and "overrides" in tuned.get(spec.network, {}):
        found["overrides"] = tuned[spec.network]["overrides"]
    return replace(spec, settings={**found, **spec.settings})


def _prepare(study: Study, source: Path, work: Path) -> None:
    for words in study.prepare:
        command = [word.format(source=source, work=work) for word in words]
        target = Path(command[max(command.index(o) for o in ("--output_dir", "--output") if o in command) + 1])
        if (target / "datalist.json").is_file() or target.is_file():
            continue
        logger.info("fmirnet_monai %s", " ".join(command))
        done = subprocess.run(
            [sys.executable, "-m", "fmirnet_monai", *command], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ValueError(f"{' '.join(command[:2])} failed: {done.stderr.strip().splitlines()[-1]}")
