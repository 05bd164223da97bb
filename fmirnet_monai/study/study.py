"""A whole table from raw data: prepare, tune, train, compare. Every step is left out where it is done already."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import types
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from fmirnet_monai.data import check_sections, load_volumes, read_sections
from fmirnet_monai.utils import read_json, reason, write_text

from .comparison import compare, kept_rows
from .methods import Context, MethodSpec, read_tuned
from .propagation import PropagationMethod, compare_propagation
from .running import Cases
from .segmentation import SegmentationMethod, compare_segmentation, kept_runs
from .training import train_networks
from .tuning import trials_table, tune

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study(ABC):
    """A JSON file in ``benchmarks`` that says how a table is made.

    Its entry ``kind`` says what is compared, registration where there is none. Its entry ``data`` names other JSON
    files beside it, one or a list, with the fields that all studies of one data set share; all of them prepare.

    Attributes:
        file: the JSON file.
        title: of the table.
        methods: rows of the table.
        prepare: commands of this package that write the data, as lists of words; ``{source}`` stands for the folder of
            the raw data sets, ``{work}`` for that of the results. One whose ``--output_dir`` (or ``--output``) exists
            is left out, but its subjects must stand in the sections that ``--sections`` names.
    """

    file: Path
    title: str
    methods: Sequence[Mapping[str, Any]]
    prepare: Sequence[Sequence[str]] = ()

    @staticmethod
    def read(path: str | Path) -> Study:
        """Read a study.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when it is not JSON with these fields.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"study: no such file: {path}.")
        try:
            content = read_json(file)
            names = content.pop("data", [])
            shared = [read_json(file.parent / name) for name in ([names] if isinstance(names, str) else names)]
            prepare = [words for part in [*shared, content] for words in part.get("prepare", [])]
            fields = {**{key: value for part in shared for key, value in part.items()}, **content, "prepare": prepare}
            study = KINDS[fields.pop("kind", "registration")](file, **fields)
            _check_types(study)
        except Exception as error:  # whatever other objects than studies lead to
            raise ValueError(f"study: {path} is no study: {reason(error)}.") from error
        return study

    @abstractmethod
    def make(self, work: Path, results: Path | None, keep: Sequence[str] = ()) -> str:
        """Do what is left to do and write ``comparison.md``, ``.csv`` and ``.json`` into :py:meth:`folder`.

        Args:
            work: folder of all studies.
            results: folder that gets what else is worth keeping.
            keep: see :py:func:`run_study`.

        Returns:
            the Markdown table.
        """

    def folder(self, work: Path) -> Path:
        """This study's own folder."""
        return work / self.file.stem


def _check_types(study: Study) -> None:
    """Raise TypeError where a field is of another kind than its annotation says."""
    kinds: dict[Any, Any] = {Sequence: (list, tuple), Mapping: dict, float: (int, float)}
    for name, hint in get_type_hints(type(study)).items():
        parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        allowed = [get_origin(part) or part for part in parts]
        value = getattr(study, name)
        if not any(isinstance(value, kinds.get(kind, kind)) for kind in allowed):
            raise TypeError(f"its {name} is {value!r}")


@dataclass(frozen=True)
class RegistrationStudy(Study):
    """Methods of registration on pairs; ``methods`` are the fields of :py:class:`MethodSpec`, the first the reference.

    Attributes:
        datalist: of the pairs, below the working folder.
        cases: further fields of :py:class:`Cases`.
        context: further fields of :py:class:`Context`.
        models: folder of the training runs, below the working folder; studies of one data set share it.
        training_datalist: of the pairs that the networks learn from, below the working folder, if not ``datalist``.
        training: config overrides that all networks share, in tuning too: the winner's run is the one compared.
        tuned: JSON file of tuned settings beside ``file``; made where it is not there.
        borrowed: JSON files of settings tuned on other pairs, for the methods that are not tuned on these.
        tuning: ``methods`` to tune, each a name or the fields of :py:class:`MethodSpec` with settings that are not
            searched; ``count`` of pairs.
        labels: number to name of the labels whose Dice gets a column of its own, where there are several.
    """

    datalist: str = "datalist.json"
    cases: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    models: str = "models"
    training_datalist: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    tuned: str | None = None
    borrowed: Sequence[str] = ()
    tuning: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def make(self, work: Path, results: Path | None, keep: Sequence[str] = ()) -> str:
        """Tune, train and compare, see :py:meth:`Study.make` and, for ``keep``, :py:func:`run_study`."""
        context = replace(Context(**self.context), models_dir=str(work / self.models))
        cases = Cases(str(work / self.datalist), **self.cases)
        settings: dict[str, dict[str, Any]] = {}
        for name in self.borrowed:
            settings |= read_tuned(self.file.parent / name)
        if self.tuned:
            tuned = self.file.parent / self.tuned
            if self.tuning:
                rows = [{"name": row} if isinstance(row, str) else row for row in self.tuning["methods"]]
                validation = replace(cases, section="validation", count=self.tuning.get("count", 40))
                found = tune(validation, [MethodSpec(**row) for row in rows], tuned, context, self.training)
                if results:
                    target = results / f"{tuned.stem}_tuning.md"
                    write_text(target, f"# Tuning, {self.title}\n\n{trials_table(found)}")
            settings |= read_tuned(tuned)
        methods = [_method(row, settings) for row in self.methods]
        kept = kept_rows(results / f"{self.file.stem}.json", keep, cases, methods) if results and keep else {}
        left = [spec for spec in methods if spec.row not in kept]
        jobs = [
            spec.job(
                str(work / spec.settings.get("datalist", self.training_datalist or self.datalist)),
                context,
                self.training,
            )
            for spec in left
            if spec.learned
        ]
        train_networks(list({job.output_dir: job for job in jobs}.values()))
        folder = self.folder(work)
        return compare(cases, methods, folder, context, self.title, memory=True, labels=self.labels, kept=kept)


@dataclass(frozen=True)
class PropagationStudy(Study):
    """Label propagation through volumes; ``methods`` are the fields of :py:class:`PropagationMethod`.

    Attributes:
        volumes: sets of the table: ``set`` (its name), ``datalist`` with volumes, below the working folder, and the
            ``section`` of it to take.
        every: numbers k: every k-th slice is annotated.
    """

    volumes: Sequence[Mapping[str, Any]] = ()
    every: Sequence[int] = (5, 10, 15)

    def make(self, work: Path, results: Path | None, keep: Sequence[str] = ()) -> str:
        """Compare, see :py:meth:`Study.make`; nothing is kept."""
        chosen = []
        for group in self.volumes:
            volumes = load_volumes(work / group["datalist"], group["section"])
            chosen += [{**volume, "set": group["set"]} for volume in volumes]
        methods = [PropagationMethod(**row) for row in self.methods]
        return compare_propagation(chosen, methods, self.folder(work), self.every, self.title)


@dataclass(frozen=True)
class SegmentationStudy(Study):
    """Joint registration and segmentation; ``methods`` are the fields of :py:class:`SegmentationMethod`.

    Attributes:
        models: folder of the training runs, below the working folder; studies of one data set share it.
        training: config overrides that all rows share.
        section: of the volumes that are segmented.
        labels: number to name of the labels that get a column of their own, where there are several.
    """

    models: str = "models"
    training: Mapping[str, Any] = field(default_factory=dict)
    section: str = "test"
    labels: Mapping[str, str] = field(default_factory=dict)

    def make(self, work: Path, results: Path | None, keep: Sequence[str] = ()) -> str:
        """Train and segment, see :py:meth:`Study.make` and, for ``keep``, :py:func:`run_study`."""
        methods = [SegmentationMethod(**row) for row in self.methods]
        kept = {}
        if results and keep:
            subjects = [item["subject"] for item in load_volumes(work / methods[0].datalist, self.section)]
            kept = kept_runs(results / f"{self.file.stem}.json", keep, methods, self.training, subjects)
        options = (self.folder(work), self.training, self.title, self.section, self.labels, kept)
        return compare_segmentation(methods, work, work / self.models, *options)


KINDS: dict[str, type[Study]] = {
    "registration": RegistrationStudy,
    "propagation": PropagationStudy,
    "segmentation": SegmentationStudy,
}


def run_study(
    path: str | Path,
    source_dir: str | Path,
    work_dir: str | Path,
    results_dir: str | Path | None = None,
    keep: Sequence[str] = (),
) -> str:
    """Make the table of a study; started again, it goes on where it broke off.

    Args:
        path: JSON file of the study.
        source_dir: folder of the raw data sets.
        work_dir: folder for data, runs, cases and figures.
        results_dir: folder that gets the table as Markdown, CSV and JSON, and the trials of the tuning; no images.
        keep: methods of a registration study, or models of a segmentation study, whose rows in ``results_dir`` stay
            where their settings are the same.

    Returns:
        the Markdown table.

    Raises:
        FileNotFoundError: when the study or its data do not exist.
        ValueError: when a step fails; the message names the command.
    """
    study, work, results = Study.read(path), Path(work_dir), Path(results_dir) if results_dir else None
    if not Path(source_dir).is_dir():
        raise FileNotFoundError(f"source_dir: no such folder: {source_dir}; give the folder of the raw data sets.")
    if keep and (results is None or isinstance(study, PropagationStudy)):
        raise ValueError("keep: takes rows from --results_dir, not of propagation; give that, or leave it out.")
    _prepare(study, Path(source_dir), work)
    text = study.make(work, results, keep)
    if results:
        for suffix in (".md", ".csv", ".json"):
            results.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(study.folder(work) / f"comparison{suffix}", results / f"{study.file.stem}{suffix}")
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
            if "--sections" in command:
                sections = read_sections(command[command.index("--sections") + 1])
                check_sections(target / "datalist.json", sections)
            continue
        logger.info("fmirnet_monai %s", " ".join(command))
        done = subprocess.run(
            [sys.executable, "-m", "fmirnet_monai", *command], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ValueError(f"{' '.join(command[:2])} failed: {done.stderr.strip().splitlines()[-1]}")
