"""Label propagation measured: every k-th slice annotated, Dice of the slices between."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_tensor, optional_import
from torch import Tensor
from tqdm import tqdm

from fmirnet_monai.data import read_image, read_label
from fmirnet_monai.registration import Annotation, Blend, Method, Propagation, propagate, relabel
from fmirnet_monai.utils import package_version, read_json, write_text

from .methods import Row

Known = dict[str, tuple[Tensor, Propagation, float]]  # of one sparse label: image, result and seconds by settings


@dataclass(frozen=True)
class PropagationMethod(Row):
    """One method of label propagation in a comparison.

    Attributes:
        name: ``registration``; ``interpolation``, linear, of the masks' signed distance maps; or ``morphological``,
            ITK's contour interpolation, which annotation tools offer.
        settings: of :py:class:`Method`; ``blend``, of :py:class:`Blend`; and ``train_epochs`` of ``relabel``.

    Raises:
        ValueError: for another name.
    """

    def __post_init__(self) -> None:
        if self.name not in ("registration", "interpolation", "morphological"):
            raise ValueError(f"{self.name} is no method of propagation: registration, interpolation or morphological.")

    def run(
        self, image: MetaTensor, label: MetaTensor, annotation: Annotation, known: Known | None = None
    ) -> tuple[Tensor, float]:
        """Label a volume from its annotated slices.

        Args:
            image: volume.
            label: of its annotated slices.
            annotation: which these are.
            known: what methods that differ in ``train_epochs`` alone share, of this label; kept up.

        Returns:
            the label ``(1, X, Y, Z)``, and the seconds it takes from nothing.
        """
        begin, before = time.perf_counter(), 0.0
        if self.name == "morphological":
            found = interpolate_contours(image, label, annotation)
        elif self.name == "interpolation":
            found = propagate(image, label, annotation).label
        else:
            settings = dict(self.settings)
            epochs = settings.pop("train_epochs", 0)
            known = {} if known is None else known
            key = json.dumps(settings, sort_keys=True)
            if key not in known:
                blend = Blend(**settings.pop("blend", {}))
                scaled, registrar = Method(**settings).slice_registrar(image)
                result = propagate(scaled, label, annotation, registrar, blend)
                known[key] = scaled, result, time.perf_counter() - begin
            else:
                before = known[key][2]
            scaled, result, _ = known[key]
            found = relabel(scaled, result, epochs).label if epochs else result.label
        return found, before + time.perf_counter() - begin


def interpolate_contours(image: MetaTensor, label: MetaTensor, annotation: Annotation) -> Tensor:
    """ITK's morphological contour interpolation (Zukić et al., Insight Journal 2016), which looks at no image."""
    itk, available = optional_import("itk")
    if not available or not hasattr(itk, "MorphologicalContourInterpolator"):
        raise ValueError("morphological: needs ITK's contours: pip install 'fmirnet_monai[contours]'.")
    ids, numbered = np.unique(convert_to_tensor(label, track_meta=False)[0].numpy(), return_inverse=True)
    stored = itk.image_from_array(np.ascontiguousarray(numbered.reshape(label.shape[1:]).T.astype(np.uint8)))
    threads = itk.MultiThreaderBase.GetGlobalDefaultNumberOfThreads()
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)  # with several it now and then corrupts memory
    try:
        found = itk.morphological_contour_interpolator(stored, axis=annotation.axis)
    finally:
        itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(threads)
    return torch.from_numpy(ids[itk.array_from_image(found).T].astype(np.int32))[None]


def every_kth(label: Tensor, step: int, axis: int = 2) -> Annotation:
    """Every ``step``-th slice from the first labelled one on, and the last labelled one."""
    drawn = convert_to_tensor(label, track_meta=False)[0].movedim(axis, 0).flatten(1).any(1).nonzero()
    first, last = int(drawn.min()), int(drawn.max())
    return Annotation(axis, tuple(dict.fromkeys([*range(first, last, step), last])))


def sparse_label(label: MetaTensor, annotation: Annotation) -> MetaTensor:
    """The label on the annotated slices only."""
    index = (slice(None),) * (annotation.axis + 1) + (list(annotation.slices),)
    kept = label.clone()
    kept[:] = 0
    kept[index] = label[index]
    return kept


def overlap_between(found: Tensor, label: Tensor, annotation: Annotation) -> dict[int, float]:
    """Dice of each label, over all slices between annotated ones together.

    Args:
        found: integers ``(1, X, Y, Z)``.
        label: the truth.
        annotation: the slices that don't count.

    Returns:
        by label; those that no such slice holds are left out.
    """
    inside = [i for i in range(annotation.slices[0], annotation.slices[-1]) if i not in annotation.slices]
    index = torch.tensor(inside)
    pair = [convert_to_tensor(t, track_meta=False)[0].index_select(annotation.axis, index) for t in (found, label)]
    result = {}
    for value in (int(v) for v in pair[1].unique() if v != 0):
        a, b = ((part == value).double() for part in pair)
        result[value] = float(2 * (a * b).sum() / (a.sum() + b.sum()))
    return result


def compare_propagation(
    volumes: Sequence[Mapping[str, Any]],
    methods: Sequence[PropagationMethod],
    output_dir: str | Path,
    every: Sequence[int] = (5, 10, 15),
    title: str = "",
) -> str:
    """Run every method on every volume and write ``comparison.md``, ``.csv`` and ``.json``; resumable.

    Args:
        volumes: items ``{"image", "label", "subject", "set"}``; ``set`` groups them in the table.
        methods: rows of the table.
        output_dir: folder to write.
        every: each of these numbers k: every k-th slice is annotated.
        title: of the table.

    Returns:
        the Markdown table: mean over labels of a volume, then mean (standard deviation) over volumes.

    Raises:
        ValueError: when the folder holds cases of other settings.
    """
    folder = Path(output_dir)
    cases, settings = folder / "comparison.csv", folder / "settings.json"
    rows: list[dict[str, Any]] = []
    specs = read_json(settings) if settings.is_file() else {}
    if cases.is_file():
        wanted = {(volume["set"], volume["subject"]) for volume in volumes}
        stored = pd.read_csv(cases, dtype={"subject": str}).to_dict("records")
        rows += [{str(k): v for k, v in row.items()} for row in stored if (row["set"], row["subject"]) in wanted]
    for spec in methods:
        asked = json.loads(json.dumps(asdict(spec)))
        if specs.setdefault(spec.row, asked) != asked:
            raise ValueError(f"{cases}: holds cases of {spec.row} with other settings; remove {folder}.")
    write_text(settings, json.dumps(specs, indent=1) + "\n")
    done = {(row["method"], row["set"], row["subject"], row["every"]) for row in rows}
    progress = tqdm(total=len(methods) * len(volumes) * len(every), unit="case")
    for volume in volumes:
        image, label = read_image(volume["image"]), read_label(volume["label"])
        for step in every:
            annotation = every_kth(label, step)
            sparse, known = sparse_label(label, annotation), Known()
            for spec in methods:
                progress.set_description(f"{volume['subject']}, {spec.row}")
                key = {"method": spec.row, "set": volume["set"], "subject": volume["subject"], "every": step}
                if tuple(key.values()) not in done:
                    found, seconds = spec.run(image, sparse, annotation, known)
                    dice = overlap_between(found, label, annotation)
                    rows += [{**key, "label": i, "dice": value, "seconds": seconds} for i, value in dice.items()]
                    write_text(cases, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))
                progress.update()
    progress.close()
    table = pd.DataFrame(rows)
    text = _table(table, methods, every, title)
    write_text(folder / "comparison.md", text)
    content = {
        spec.row: {
            name: {str(k): float(values.mean()) for k, values in part.groupby("every")["dice"]}
            for name, part in table[table["method"] == spec.row].groupby("set")
        }
        for spec in methods
    }
    write_text(folder / "comparison.json", json.dumps({"title": title, "dice": content}, indent=1) + "\n")
    return text


def _table(rows: pd.DataFrame, methods: Sequence[PropagationMethod], every: Sequence[int], title: str) -> str:
    keys = ["method", "set", "subject", "every"]
    volumes = rows.groupby(keys, as_index=False, sort=False).agg(dice=("dice", "mean"), seconds=("seconds", "first"))
    lines = [f"# {title}", ""] if title else []
    for name, part in volumes.groupby("set", sort=False):
        labels = rows[rows["set"] == name]["label"].nunique()
        n = part["subject"].nunique()
        lines += [
            f"{name}: n = {n} volume{'s' if n > 1 else ''}, {labels} label{'s' if labels > 1 else ''}.",
            "",
            "| Dice between annotated slices | " + " | ".join(f"every {k}" for k in every) + " | Seconds a volume |",
            "|---" * (len(every) + 2) + "|",
        ]
        for spec in methods:
            own = part[part["method"] == spec.row]
            cells = [_cell(own[own["every"] == k]["dice"]) for k in every]
            lines.append(f"| {spec.row} | " + " | ".join(cells) + f" | {own['seconds'].mean():.1f} |")
        lines.append("")
    lines += ["Settings:", "", *(f"- {spec.row}: `{spec.name}` {dict(spec.settings) or ''}" for spec in methods), ""]
    packages = ("torch", "monai", "itk", "itk-morphologicalcontourinterpolation")
    lines += ["Versions: " + ", ".join(f"{name} {package_version(name)}" for name in packages) + ".", ""]
    return "\n".join(lines)


def _cell(values: pd.Series) -> str:
    spread = f" ({values.std(ddof=1):.3f})" if len(values) > 1 else ""
    return f"{values.mean():.4f}{spread}"
