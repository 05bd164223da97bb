"""All cases of a datalist, each into its own folder: what ``register`` and ``propagate`` do with ``--datalist``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fmirnet_monai import data, report
from fmirnet_monai.bundle import published_weights
from fmirnet_monai.formats import stem
from fmirnet_monai.output import METRICS, new_files, require_folder
from fmirnet_monai.parallel import at_a_time
from fmirnet_monai.registration import Method
from fmirnet_monai.resume import KEY, is_done, result_key
from fmirnet_monai.terms import tell_terms
from fmirnet_monai.utils import digest, read_json, versions, write_text
from fmirnet_monai.workers import Workers
from fmirnet_monai.workflow import Outputs, PropagationOptions, depends_on, propagate_file, register_files

SUMMARY = "summary.csv"
PROPAGATION = "propagation.json"  # the last file of a volume that is labelled, as metrics.json of a pair
SCHEMA = 1  # of it
LABEL, CONFIDENCE = "label.nii.gz", "confidence.nii.gz"


@dataclass(frozen=True)
class Done:
    """What is to be told of a case: why it failed, empty when it is done, its notes, and whether it was done before."""

    name: str
    error: str = ""
    notes: Sequence[str] = ()
    before: bool = False

    def say(self) -> None:
        for text in (*self.notes, *([self.error] if self.error else ())):
            tqdm.write(f"{self.name}: {text}")


def register_datalist(
    datalist: str | Path,
    section: str,
    output_dir: str | Path,
    method: Method,
    outputs: Outputs | None = None,
    workers: Workers | None = None,
    overwrite: bool = False,
) -> Any:
    """Register every pair of a section, each into a folder of its own, and write ``summary.csv`` and ``report.html``.

    As many pairs are registered at a time as torch has threads (``OMP_NUM_THREADS``), each by a process of one thread:
    small images keep no more than one busy. On a GPU a few at a time are read and written beside the one that it
    registers. A pair that fails is reported and left out, the rest is done. One that is there already, made of the same
    files with the same settings, is not done again.

    Args:
        datalist: JSON datalist of pairs.
        section: of it.
        output_dir: folder to write.
        method: how.
        outputs: what to write of each pair.
        workers: who registers, in place of processes of this computer.
        overwrite: register again what is there.

    Returns:
        a pandas DataFrame, one row a pair: its folder, its metrics, and ``error`` where it failed.

    Raises:
        ChildProcessError: when one of the processes is killed, as happens when memory is short.
        OSError: when a cluster can't be reached, or does not see the folder.
    """
    import pandas as pd  # single pairs do without

    folder, wanted = Path(output_dir).absolute(), outputs or Outputs()
    pairs = data.load_pairs(datalist, section, must_exist=False)
    names = [f"{i:04d}_{stem(pair['moving'])}_to_{stem(pair['fixed'])}" for i, pair in enumerate(pairs)]
    method = replace(method.anywhere(), progress=False)
    settings = None if overwrite else depends_on(method, wanted)
    work = partial(_register_one, folder=folder, method=method, outputs=wanted, settings=settings)
    done = _each(work, dict(zip(names, pairs, strict=True)), folder, method, ("registering", "pair"), workers)
    rows = [{"pair": one.name, **_summary_row(folder / one.name, one.error)} for one in done]
    table = pd.DataFrame([{**row, "verdict_reasons": " ".join(row.get("verdict_reasons", ()))} for row in rows])
    write_text(folder / SUMMARY, table.to_csv(index=False, float_format="%.6g"))
    if wanted.report:
        report.write_batch(rows, folder / "report.html")
    return table


def propagate_datalist(
    datalist: str | Path,
    section: str,
    output_dir: str | Path,
    method: Method,
    options: PropagationOptions | None = None,
    workers: Workers | None = None,
    overwrite: bool = False,
) -> Any:
    """Label every volume of a section from its annotated slices, and write ``summary.csv``.

    The folder of each gets ``label.nii.gz``, ``confidence.nii.gz`` and ``propagation.json``. One volume is labelled
    after the other, several slices at a time, unless there are workers. What fails is reported and left out; what is
    there already, made of the same files with the same settings, is not done again.

    Args:
        datalist: JSON datalist, a section of which lists ``{"image", "label"}``.
        section: of it.
        output_dir: folder to write.
        method: how slices are registered.
        options: how their labels are carried.
        workers: who does it.
        overwrite: do again what is there.

    Returns:
        a pandas DataFrame, one row a volume: its folder, what was annotated, and ``error`` where it failed.

    Raises:
        ChildProcessError: when one of the processes is killed, as happens when memory is short.
        OSError: when a cluster can't be reached, or does not see the folder.
    """
    import pandas as pd

    folder, chosen = Path(output_dir).absolute(), options or PropagationOptions()
    volumes = data.load_labelled(datalist, section)
    names = [f"{i:04d}_{stem(volume['image'])}" for i, volume in enumerate(volumes)]
    method = replace(method.anywhere(), progress=not workers)
    settings = {"method": method.identity(), "propagation": asdict(chosen)}
    work = partial(_propagate_one, folder=folder, method=method, options=chosen, settings=settings, overwrite=overwrite)
    done = _each(
        work, dict(zip(names, volumes, strict=True)), folder, method, ("labelling", "volume"), workers, alone=True
    )
    rows = []
    for one in done:
        annotation = "" if one.error else read_json(folder / one.name / PROPAGATION)["annotation"]
        rows.append({"volume": one.name, "annotation": annotation, "error": one.error})
    table = pd.DataFrame(rows)
    write_text(folder / SUMMARY, table.to_csv(index=False))
    return table


def _each(
    work: Callable[[tuple[str, Mapping[str, Any]]], Done],
    cases: Mapping[str, Mapping[str, Any]],
    folder: Path,
    method: Method,
    words: tuple[str, str],
    workers: Workers | None,
    alone: bool = False,
) -> list[Done]:
    """Do all cases, and tell of each what there is to tell."""
    require_folder(folder)
    for bundle in method.bundles() if workers else ():  # told here, not by each worker or in another computer's log
        tell_terms(published_weights(bundle, method.variant))
    try:
        done = at_a_time(
            work,
            [*cases.items()],
            method.torch_device(),
            *words,
            said=Done.say,
            processes=True,
            alone=alone,
            workers=workers,
            folder=folder,
            lost=_lost,
        )
    except ChildProcessError as error:
        raise ChildProcessError(f"{error} What is done is kept: start the command again.") from error
    if before := sum(one.before for one in done):
        text = f"{before} of {len(done)} are there already, made of the same files and settings; --overwrite true does"
        print(f"note: {text} them again.", file=sys.stderr)
    return done


def _lost(item: tuple[str, Mapping[str, Any]], reason: str) -> Done:
    return Done(item[0], reason)


def _register_one(
    item: tuple[str, Mapping[str, Any]],
    folder: Path,
    method: Method,
    outputs: Outputs,
    settings: Mapping[str, Any] | None,
) -> Done:
    """One pair, unless it is done already by these settings; None does it in any case."""
    name, pair = item
    files = {key: value for key, value in pair.items() if key in data.PATH_KEYS}
    if settings is not None and is_done(folder / name / METRICS, files, settings):
        return Done(name, before=True)
    try:
        return Done(name, notes=register_files(files, folder / name, method, outputs).notes)
    except (ValueError, OSError, RuntimeError) as error:
        return Done(name, " ".join(str(error).split()))


def _propagate_one(
    item: tuple[str, Mapping[str, Any]],
    folder: Path,
    method: Method,
    options: PropagationOptions,
    settings: Mapping[str, Any],
    overwrite: bool,
) -> Done:
    """One volume, unless it is done already by these settings."""
    name, volume = item
    files = {key: volume[key] for key in data.VOLUME_KEYS}
    if not overwrite and is_done(folder / name / PROPAGATION, files, settings):
        return Done(name, before=True)
    try:
        with new_files(folder / name, PROPAGATION) as place:
            result = propagate_file(
                files["image"], files["label"], str(place / LABEL), method, options, str(place / CONFIDENCE)
            )
            sha256 = {file: digest(file) for file in files.values()}
            content = {
                "schema": SCHEMA,
                **files,
                "annotation": result.annotation.describe(result.label.shape[result.annotation.axis + 1]),
                "settings": settings,
                KEY: result_key(files, sha256, settings),
                "versions": versions(),
                "sha256": sha256,
                "files": [CONFIDENCE, LABEL, PROPAGATION],
            }
            write_text(place / PROPAGATION, json.dumps(content, indent=1) + "\n")
    except (ValueError, OSError, RuntimeError) as error:
        return Done(name, " ".join(str(error).split()))
    return Done(name)


def _summary_row(folder: Path, error: str) -> dict[str, Any]:
    if error or not (folder / METRICS).is_file():
        return {"error": error or "not done"}
    content = read_json(folder / METRICS)
    judged = {
        "verdict": content.get("verdict", ""),
        "verdict_reasons": content.get("verdict_reasons", []),
        "verdict_risk": content.get("verdict_risk"),
    }
    return {**judged, **content["metrics"], "seconds": sum(content["seconds"].values()), "error": ""}
