"""Pairs that the user names: a moving and a fixed image of one subject, such as end-diastole and end-systole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from fmirnet_monai.output import new_files
from fmirnet_monai.spatial import Grid
from fmirnet_monai.workers import Workers

from .datalist import PATH_KEYS, write_datalist
from .folder import Case, match_files, read_folder_case, read_table
from .pairing import Pair, Pairing, split_pairs
from .prepare import DATALIST, refuse_existing, share, to_lps, write_item
from .volume import require_folder


def match_pairs(source_dir: str | Path, patterns: Mapping[str, str]) -> list[Pair]:
    """Pairs of the files in a folder whose names agree in the part that ``*`` stands for, which names the subject.

    Args:
        source_dir: folder of the files.
        patterns: of ``moving`` and ``fixed`` and, if wanted, their labels and points, with one ``*`` each, such as
            ``{"moving": "*_ED.nii.gz", "fixed": "*_ES.nii.gz"}``. A name without ``*`` is one file for all subjects,
            such as an atlas, which is not paired with itself; ``moving`` or ``fixed`` must have a ``*``.

    Returns:
        one pair per subject, in natural order, with absolute paths.

    Raises:
        FileNotFoundError: when the folder does not exist or nothing matches.
        ValueError: when neither image's pattern has a ``*``, or one subject has no file for it.
    """
    folder = require_folder(source_dir, "source_dir").absolute()
    single = {key: folder / pattern for key, pattern in patterns.items() if "*" not in pattern}
    for key, path in single.items():
        if not path.exists():
            raise FileNotFoundError(f"{key}: no such file: {path}; a pattern has one '*', which names the subject.")
    found = {key: match_files(folder, pattern, key) for key, pattern in patterns.items() if key not in single}
    lead = next((side for side in ("moving", "fixed") if side in found), None)
    if lead is None:
        raise ValueError("moving, fixed: one of the patterns needs a '*', which names the subject.")
    subjects = [name for name, path in found[lead].items() if path not in single.values()]
    if not subjects:
        raise FileNotFoundError(f"{lead}: nothing in {folder} matches {patterns[lead]!r}.")
    for key, files in found.items():
        if missing := [name for name in subjects if name not in files]:
            raise ValueError(
                f"{key}: {len(missing)} of {len(subjects)} subjects have no file matching {patterns[key]!r} in "
                f"{folder}, the first {missing[0]}."
            )
    return [
        {**{key: str(single.get(key) or found[key][name]) for key in patterns}, "subject": name} for name in subjects
    ]


def read_pair_table(table: str | Path) -> list[Pair]:
    """Pairs from a CSV or JSON table with the columns ``moving`` and ``fixed``, and any of ``moving_label``,
    ``fixed_label``, ``moving_points``, ``fixed_points`` and ``subject`` (by default each row is one).

    Paths may be relative to the table's folder. JSON is a list of objects.

    Raises:
        FileNotFoundError: when the table or a file it names does not exist.
        ValueError: when the table can't be read, or a row has no moving or fixed image.
    """
    path = Path(table).absolute()
    pairs = []
    for number, row in enumerate(read_table(path, ("moving", "fixed")), 1):
        files = {
            key: path.parent / str(row[key]) for key in PATH_KEYS if row.get(key) and not key.endswith("_channels")
        }
        for file in files.values():
            if not file.exists():
                raise FileNotFoundError(f"{path}: names a file that does not exist: {file}")
        pairs.append({**{k: str(f) for k, f in files.items()}, "subject": str(row.get("subject") or f"{number:04d}")})
    return pairs


def write_named_pairs(
    pairs: Iterable[Pair],
    output_dir: str | Path,
    pairing: Pairing,
    name: str,
    workers: Workers | None = None,
    progress: bool = False,
) -> Path:
    """Write the datalist of pairs that are there already.

    With ``pairing.spatial_dims`` 3 the datalist names the files as they are. With 2, both volumes of a pair are cut
    into slices and each slice of the moving volume is paired with the one of the same number, where there are labels
    only if both hold at least ``min_label_area``.

    Args:
        pairs: as of :py:func:`match_pairs`.
        output_dir: folder to write; must not hold a datalist yet.
        pairing: ``spatial_dims``, ``min_label_area`` and what divides the subjects count here.
        name: of the data, noted in the datalist.
        workers: who cuts volumes into slices; by default this process.
        progress: show a bar.

    Returns:
        path of the datalist.

    Raises:
        FileExistsError: when the folder holds a datalist already.
        ValueError: when the volumes of a pair differ in their grid, or no pair is left.
    """
    refuse_existing(output_dir)
    with new_files(output_dir, DATALIST) as folder:
        if pairing.spatial_dims == 3:
            written = list(pairs)
        else:
            met, numbered = Counter[str](), []
            for pair in pairs:
                met[pair["subject"]] += 1
                numbered.append((pair, met[pair["subject"]]))
            cut = partial(_slice_pair, folder=folder, min_label_area=pairing.min_label_area)
            written = [pair for part in share(cut, numbered, "pair", folder, workers, progress) for pair in part]
        if not written:
            raise ValueError("no pair is left: no slice has min_label_area in both images; lower it.")
        write_datalist(folder / DATALIST, split_pairs(written, pairing), name=name, **pairing.properties())
    return Path(output_dir) / DATALIST


def _slice_pair(numbered: tuple[Pair, int], folder: Path, min_label_area: float) -> list[Pair]:
    """The pairs of slices of a subject's pair of this number; its second and further ones get folders of their own."""
    pair, number = numbered
    subject = pair["subject"]
    place = f"slices/{subject}" + (f"/{number}" if number > 1 else "")
    volumes = []
    for side in ("moving", "fixed"):
        label = pair.get(f"{side}_label")
        volumes.append(to_lps(read_folder_case(Case(subject, Path(pair[side]), Path(label) if label else None))))
    moving = volumes[0]
    grids = [Grid(volume.image.shape, np.asarray(volume.affine, dtype=np.float64)) for volume in volumes]
    if not grids[1].matches(grids[0], tolerance=0.1):
        raise ValueError(
            f"{pair['fixed']}: its grid is not that of {pair['moving']}: {grids[1].difference(grids[0])}; slices can "
            "be paired by number only on one grid: take --spatial_dims 3, or resample one onto the other."
        )
    kept = np.ones(moving.image.shape[2], dtype=bool)
    pixel_area = float(np.prod(np.linalg.norm(moving.affine[:3, :2], axis=0)))
    for volume in volumes:
        if volume.label is not None:
            kept &= (volume.label > 0).sum((0, 1)) * pixel_area >= min_label_area
    result = []
    for index in np.flatnonzero(kept):
        items = {
            side: write_item(folder, f"{place}/{side}", volume, int(index))
            for side, volume in zip(("moving", "fixed"), volumes, strict=True)
        }
        labels = {f"{side}_label": item["label"] for side, item in items.items() if "label" in item}
        images = {side: item["image"] for side, item in items.items()}
        result.append({**images, **labels, "subject": subject, "slice": int(index)})
    return result
