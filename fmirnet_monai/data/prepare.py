"""Write slices or volumes of any reader, and the datalist of their pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from fmirnet_monai.output import new_files
from fmirnet_monai.parallel import at_a_time
from fmirnet_monai.workers import Workers

from .datalist import VOLUMES, write_datalist
from .pairing import Pair, Pairing, limit_partners, slice_pairs, split_pairs, volume_pairs
from .volume import Volume

DATALIST = "datalist.json"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Sharing:
    """How cases become volumes, and who does it.

    Attributes:
        read: makes a volume of a case.
        errors: that leave a case out.
        workers: who reads and writes; by default this process, one case after the other.
        progress: show a bar.
    """

    read: Callable[[Any], Volume]
    errors: tuple[type[Exception], ...] = ()
    workers: Workers | None = None
    progress: bool = False


def write_pairs(
    volumes: Iterable[Any],
    output_dir: str | Path,
    pairing: Pairing,
    keep_volumes: bool = False,
    sharing: Sharing | None = None,
    **properties: Any,
) -> Path:
    """Write the images of all pairs as NIfTI, and ``datalist.json``, all or nothing.

    All volumes are first brought to the axis order left, posterior, superior, so that slices of any source lie alike.

    Args:
        volumes: read one at a time; with ``sharing``, what it makes them of.
        output_dir: folder to write; must not hold a datalist yet.
        pairing: how pairs are made and divided.
        keep_volumes: write the whole volumes beside the slices too, and name them in the datalist's ``volumes``, each
            in the section of its slices; see :py:func:`load_volumes`.
        sharing: how volumes are read, and by whom.
        properties: further entries of the datalist (name, source, …); ``left_out`` says why other volumes are not here,
            and gets why ``sharing`` leaves some out.

    Returns:
        path of the datalist.

    Raises:
        FileExistsError: when the folder holds a datalist already.
        ValueError: when no pair comes of the volumes, two have one name, or volumes can't be kept because they belong
            to no section.
    """
    if keep_volumes and (pairing.spatial_dims != 2 or pairing.split != "subject"):
        raise ValueError("volumes: are kept beside slices (--spatial_dims 2) that are divided by --split subject.")
    refuse_existing(output_dir)
    with new_files(output_dir, DATALIST) as folder:
        _write_pairs(volumes, folder, pairing, keep_volumes, sharing or Sharing(_as_it_is), properties)
    return Path(output_dir) / DATALIST


def _write_pairs(
    volumes: Iterable[Any],
    folder: Path,
    pairing: Pairing,
    keep_volumes: bool,
    sharing: Sharing,
    properties: dict[str, Any],
) -> None:
    store = partial(_store, sharing=sharing, folder=folder, pairing=pairing, keep_volumes=keep_volumes)
    pairs: list[Pair] = []
    items: dict[str, Pair] = {}
    for stored in share(store, volumes, "volume", folder, sharing.workers, sharing.progress):
        if isinstance(stored, str):
            properties.setdefault("left_out", []).append(stored)
            continue
        if stored.subject in items:
            raise ValueError(f"subject {stored.subject} comes twice; each volume needs a name of its own.")
        pairs += stored.pairs
        items[stored.subject] = stored.item
    if pairing.spatial_dims == 3:
        pairs = [
            pair_of(items[moving], items[fixed], subject=[moving, fixed]) for moving, fixed in volume_pairs(list(items))
        ]
    if not items and properties.get("left_out"):
        left_out = properties["left_out"]
        raise ValueError(f"none of the {len(left_out)} volumes can be read, the first: {left_out[0]}")
    if not pairs:
        raise ValueError(
            f"no pair comes of {len(items)} volumes with {pairing}: 3-D pairs need two subjects, 2-D pairs a group of "
            "at least two slices; lower r or min_label_area, or add volumes."
        )
    sections = split_pairs(pairs, pairing)
    if pairing.spatial_dims == 3 and pairing.partners is not None:
        sections = {name: limit_partners(part, pairing.partners) for name, part in sections.items()}
    if not any(sections.values()):
        raise ValueError(
            f"no pair is left of {len(items)} volumes with {pairing}: every pair crosses two sections; add volumes, or "
            "change --fractions, --split or --sections."
        )
    if keep_volumes:
        subjects = {name: dict.fromkeys(pair["subject"] for pair in part) for name, part in sections.items()}
        whole = {name: [{**items[s], "subject": s} for s in members] for name, members in subjects.items()}
        properties[VOLUMES] = whole
    write_datalist(folder / DATALIST, sections, **properties, **pairing.properties())


@dataclass(frozen=True)
class _Stored:
    """What is left of a volume whose images are written: the pairs of its slices, and the files of the whole of it."""

    subject: str
    pairs: list[Pair]
    item: Pair


def _store(case: Any, sharing: Sharing, folder: Path, pairing: Pairing, keep_volumes: bool) -> _Stored | str:
    """Read a volume and write its images; or why it is left out."""
    try:
        volume = to_lps(sharing.read(case))
    except sharing.errors as error:
        return str(error)
    pairs = _write_slices(volume, folder, pairing) if pairing.spatial_dims == 2 else []
    whole = pairing.spatial_dims == 3 or (keep_volumes and bool(pairs))
    return _Stored(volume.subject, pairs, write_item(folder, f"volumes/{volume.subject}", volume) if whole else {})


def share(
    store: Callable[[Any], Any],
    cases: Iterable[Any],
    unit: str,
    folder: Path,
    workers: Workers | None,
    progress: bool,
) -> list[Any]:
    """What storing gives for each case: by this process, one after the other, or by workers."""
    return at_a_time(store, cases, CPU, "preparing", unit, progress, alone=True, workers=workers, folder=folder)


def _as_it_is(volume: Volume) -> Volume:
    return volume


def refuse_existing(folder: str | Path) -> None:
    """Raise FileExistsError when there is a datalist in a folder that one is to be written into."""
    datalist = Path(folder) / DATALIST
    if datalist.exists():
        raise FileExistsError(f"output_dir: {datalist} exists; choose another folder or remove this one.")


def to_lps(volume: Volume) -> Volume:
    """The same volume with array axes that run to the left, to the back and to the head."""
    change = ornt_transform(io_orientation(volume.affine), axcodes2ornt("LPS"))
    return Volume(
        subject=volume.subject,
        image=apply_orientation(volume.image, change),
        affine=volume.affine @ inv_ornt_aff(change, volume.image.shape),
        label=None if volume.label is None else apply_orientation(volume.label, change),
    )


def _write_slices(volume: Volume, folder: Path, pairing: Pairing) -> list[Pair]:
    slices = np.arange(volume.image.shape[2])
    if volume.label is not None:
        pixel_area = float(np.prod(np.linalg.norm(volume.affine[:3, :2], axis=0)))
        slices = slices[(volume.label > 0).sum((0, 1)) * pixel_area >= pairing.min_label_area]
    if not len(slices):
        return []
    spacing = float(np.linalg.norm(volume.affine[:3, 2]))
    written = [write_item(folder, f"slices/{volume.subject}", volume, int(index)) for index in slices]
    pairs = []
    for pair in slice_pairs(len(slices), pairing):
        moving, fixed = pair.pop("moving"), pair.pop("fixed")
        distance = round(float(slices[fixed] - slices[moving]) * spacing, 3)
        pairs.append(pair_of(written[moving], written[fixed], subject=volume.subject, **pair, distance=distance))
    return pairs


def write_item(folder: Path, name: str, volume: Volume, index: int | None = None) -> dict[str, str]:
    """Write image and label of a volume, or of its axial slice ``index``, into ``folder/name``.

    Returns:
        their paths relative to ``folder``.
    """
    image, label, affine, suffix = volume.image, volume.label, volume.affine.copy(), ""
    if index is not None:
        image, label, suffix = image[..., index], None if label is None else label[..., index], f"_{index:03d}"
        affine[:3, 3] += index * affine[:3, 2]
    (folder / name).mkdir(parents=True, exist_ok=True)
    files = {"image": f"{name}/image{suffix}.nii.gz"}
    whole = np.rint(image)
    fits = abs(whole).max() < 2**15 and np.abs(whole - image).max() <= np.ptp(image) / 500
    stored = whole.astype(np.int16) if fits else image.astype(np.float32)
    nib.save(nib.Nifti1Image(stored, affine), folder / files["image"])
    if label is not None:
        files["label"] = f"{name}/label{suffix}.nii.gz"
        nib.save(nib.Nifti1Image(label.astype(np.uint8), affine), folder / files["label"])
    return files


def pair_of(moving: dict[str, str], fixed: dict[str, str], **properties: Any) -> Pair:
    """The datalist's item for two written images, with their labels where both have one."""
    pair: Pair = {"moving": moving["image"], "fixed": fixed["image"]}
    if "label" in moving and "label" in fixed:
        pair |= {"moving_label": moving["label"], "fixed_label": fixed["label"]}
    return {**pair, **properties}
