"""Echocardiograms as downloaded: the clips of EchoNet-Dynamic and EchoNet-LVH, and CAMUS; end-diastole to end-systole.

Ouyang et al., "Video-based AI for beat-to-beat assessment of cardiac function", Nature 2020; Duffy et al.,
"High-throughput precision phenotyping of left ventricular hypertrophy", JAMA Cardiology 2022; Leclerc et al., "Deep
learning for segmentation using an open large-scale dataset in 2D echocardiography", TMI 2019.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fmirnet_monai.output import new_files
from fmirnet_monai.spatial.headers import DEFLATED, SMALL, check_room
from fmirnet_monai.utils import reading
from fmirnet_monai.workers import Workers

from .datalist import write_datalist
from .folder import read_table
from .images import read_image, read_label
from .pairing import Pair, Pairing, split_pairs
from .prepare import DATALIST, pair_of, refuse_existing, share, write_item
from .volume import Volume, natural_order, require_folder

TRACINGS = "VolumeTracings.csv"  # EchoNet-Dynamic: outlines of the left ventricle in two frames a clip
MEASUREMENTS = "MeasurementsList.csv"  # EchoNet-LVH: calipers, a row each
DIASTOLE, SYSTOLE = "LVIDd", "LVIDs"  # inner diameter of the left ventricle, in cm
PHASES = ("ED", "ES")
EDGE = 64  # pixels that FFmpeg may add to an axis


@dataclass(frozen=True)
class EchoCase:
    """Where two frames of one subject are.

    Attributes:
        subject: its name.
        files: one clip, or the images of end-diastole and end-systole.
        labels: of both images, or none.
        frames: numbers of both frames of the clip; None where nobody has said, the two that differ most are taken then.
        outlines: of the left ventricle in frames of the clip, ``(N, 2)`` column and row in pixels.
        spacing: mm a pixel of the clip, 1 where it is not known.
        view: of the heart, where a subject has several.
    """

    subject: str
    files: tuple[Path, ...]
    labels: tuple[Path, ...] = ()
    frames: tuple[int, int] | None = None
    outlines: Mapping[int, NDArray[np.floating]] = field(default_factory=dict)
    spacing: float = 1.0
    view: str = ""

    @property
    def labelled(self) -> bool:
        """Whether both frames have a label."""
        traced = self.frames is not None and all(len(self.outlines.get(frame, ())) > 2 for frame in self.frames)
        return bool(self.labels) or traced


def find_echonet_cases(source_dir: str | Path) -> tuple[list[EchoCase], list[str]]:
    """The clips of EchoNet-Dynamic (``VolumeTracings.csv``) or -LVH (``MeasurementsList.csv``).

    Args:
        source_dir: the unpacked data set, with its clips somewhere below it.

    Returns:
        one case a clip in natural order, and remarks: a table that is not there, rows of it that lack a name or a
        number, clips that it names and that are not there, a second clip of one name.

    Raises:
        FileNotFoundError: when the folder does not exist or holds no ``.avi``.
        ValueError: when a table can't be read or lacks a column.
    """
    folder = require_folder(source_dir, "source_dir").absolute()
    clips: dict[str, Path] = {}
    remarks: list[str] = []
    for path in sorted(folder.rglob("*.avi"), key=natural_order):
        if clips.setdefault(path.stem, path) != path:
            remarks.append(f"{path}: left out, {clips[path.stem]} has the same name.")
    if not clips:
        raise FileNotFoundError(f"source_dir: no clip (*.avi) below {folder}; give the unpacked EchoNet folder.")
    known: dict[str, EchoCase] = {}
    for name, read in ((MEASUREMENTS, _measured), (TRACINGS, _traced)):
        if (folder / name).is_file():
            with reading(folder / name, "can't be read ({}); download it again."):
                known = read(folder / name, clips, remarks)
            break
    if not known:
        remarks.append(
            f"{folder}: neither {TRACINGS} nor {MEASUREMENTS} is there, so of each clip the two frames that differ "
            "most are taken, without labels."
        )
    if missing := sorted(set(known) - set(clips)):
        remarks.append(f"{len(missing)} clips that the tables name are not below {folder}, the first {missing[0]}.avi.")
    return [known.get(name, EchoCase(name, (path,))) for name, path in clips.items()], remarks


def find_camus_cases(source_dir: str | Path, views: Sequence[str] = ("2CH", "4CH")) -> tuple[list[EchoCase], list[str]]:
    """The patients of CAMUS, ``patientNNNN/patientNNNN_VIEW_ED.mhd`` (or ``.nii.gz``) and the like.

    Args:
        source_dir: the unpacked data set.
        views: of the heart, each a pair of its own.

    Returns:
        one case a patient and view, and remarks: patients that lack a view. Patients of one name, as training and test
        set have, are told apart by the names of the folders they are in.

    Raises:
        FileNotFoundError: when the folder does not exist or holds no such patient.
    """
    folder = require_folder(source_dir, "source_dir").absolute()
    patients = dict.fromkeys(sorted((p.parent for p in folder.rglob("Info_*.cfg")), key=natural_order))
    known = Counter(patient.name for patient in patients)
    cases, remarks = [], []
    for patient in patients:
        subject = patient.name if known[patient.name] == 1 else "_".join(patient.relative_to(folder).parts)
        for view in views:
            stem = f"{patient.name}_{view}"
            images, labels = (
                tuple(file for phase in PHASES if (file := _either(patient, f"{stem}_{phase}{end}")))
                for end in ("", "_gt")
            )
            if len(images) == 2:
                cases.append(EchoCase(subject, images, labels if len(labels) == 2 else (), view=view))
            else:
                remarks.append(f"{patient}: has no {stem}_ED and {stem}_ES, as .mhd or .nii.gz.")
    if not cases:
        raise FileNotFoundError(
            f"source_dir: no CAMUS patient with views {','.join(views)} below {folder}; expected "
            "patientNNNN/Info_2CH.cfg and patientNNNN_2CH_ED.mhd or .nii.gz."
        )
    return cases, remarks


def read_echo_case(case: EchoCase) -> Volume:
    """Both frames of a case, stacked: end-diastole, then end-systole.

    Returns:
        image ``(X, Y, 2)`` and, where both frames are labelled, a label of that shape: 1 is the left ventricle, and in
        CAMUS 2 the myocardium, 3 the left atrium.

    Raises:
        FileNotFoundError: when a file is not there.
        ValueError: when one can't be decoded, a frame lies beyond the clip's end, both frames are the same, or the
            images differ in size or are of several slices.
    """
    if len(case.files) == 1:
        with reading(case.files[0], "can't be read as its table has it ({}); download both again."):
            return _read_clip_case(case)
    images = [read_image(path, track_meta=False) for path in case.files]
    for path, frames in zip(case.files, images, strict=True):
        if frames.shape[3:].numel() > 1:
            raise ValueError(f"{path}: an image of one frame is expected, it has {frames.shape[3]}.")
    labels = [read_label(path, track_meta=False) for path in case.labels]
    flat = [image.reshape(image.shape[:3]) for image in (*images, *labels)]  # of one slice, some
    for path, image in zip((*case.files, *case.labels), flat, strict=True):
        if image.shape != flat[0].shape:
            raise ValueError(
                f"{path}: {list(image.shape[1:])} pixels where {case.files[0].name} has {list(flat[0].shape[1:])}; the "
                "images of one view must have one size."
            )
    affine = np.eye(4)
    affine[:2, :2] = np.asarray(images[0].affine)[:2, :2]
    stacked = [np.stack([image.numpy()[0] for image in part], -1) for part in (flat[:2], flat[2:]) if part]
    return Volume(case.subject, stacked[0], affine, stacked[1] if case.labels else None)


def read_clip(path: str | Path) -> NDArray[np.uint8]:
    """All frames of a clip as grey values ``(frames, X, Y)``, X to the right and Y down.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it can't be decoded to its end, or has no frame.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no such clip: {path}.")
    import av

    with reading(path, "can't be decoded as video ({}); copy or download it again."), av.open(str(file)) as container:
        stream = container.streams.video[0]
        check_room((stream.width, stream.height), 1, file, SMALL, DEFLATED)
        largest = (stream.width + EDGE) * (stream.height + EDGE)
        stream.codec_context.options = {"max_pixels": str(largest)}  # the frames state a size too
        frames = [frame.to_ndarray(format="gray").T for frame in container.decode(stream)]
        expected = stream.frames
    if len(frames) < max(expected, 1):
        raise ValueError(f"{path}: only {len(frames)} of its {expected} frames can be decoded; download it again.")
    return np.stack(frames)


def most_different_frames(clip: NDArray[np.uint8], size: int = 32) -> tuple[int, int]:
    """The two frames, in order of time, that differ most: mean squares of cells, about ``size`` on the longer side."""
    step = max(1, max(clip.shape[1:]) // size)
    rows, columns = (n // step * step for n in clip.shape[1:])
    cells = clip[:, :rows, :columns].reshape(len(clip), rows // step, step, columns // step, step)
    small = cells.mean((2, 4)).reshape(len(clip), -1)
    squares = (small**2).sum(1)
    distance = squares[:, None] + squares[None] - 2 * small @ small.T
    first, second = np.unravel_index(distance.argmax(), distance.shape)
    return int(min(first, second)), int(max(first, second))


def _read_clip_case(case: EchoCase) -> Volume:
    clip = read_clip(case.files[0])
    frames = most_different_frames(clip) if case.frames is None else case.frames
    if beyond := [number for number in frames if not 0 <= number < len(clip)]:
        raise ValueError(f"{case.files[0]}: frame {beyond[0]} is asked for, the clip has {len(clip)}.")
    if frames[0] == frames[1]:
        raise ValueError(f"{case.files[0]}: both phases are frame {frames[0]}; a pair needs two.")
    image = np.stack([clip[number] for number in frames], -1)
    label = None
    if case.labelled:
        label = np.stack([_inside(case.outlines[number], image.shape[:2]) for number in frames], -1)
    return Volume(case.subject, image, np.diag([case.spacing, case.spacing, 1.0, 1.0]), label)


def _traced(table: Path, clips: Mapping[str, Path], remarks: list[str]) -> dict[str, EchoCase]:
    """Cases of EchoNet-Dynamic: in each traced frame the long axis, then chords; the larger area is diastole."""
    rows = _rows(table, ("FileName",), ("Frame", "X1", "Y1", "X2", "Y2"), remarks)
    rows["FileName"] = rows["FileName"].str.removesuffix(".avi")
    cases = {}
    for name, part in rows.groupby("FileName", sort=False):
        outlines = {}
        for frame in part["Frame"].unique():
            chords = part.loc[part["Frame"] == frame, ["X1", "Y1", "X2", "Y2"]].to_numpy()[1:]
            outlines[int(frame)] = np.concatenate([chords[:, :2], chords[::-1, 2:]])
        by_area = sorted(outlines, key=lambda frame: -_area(outlines[frame]))
        frames = (by_area[0], by_area[-1]) if len(by_area) > 1 else None
        path = clips.get(str(name), table.parent / f"{name}.avi")
        cases[str(name)] = EchoCase(str(name), (path,), frames=frames, outlines=outlines)
    return cases


def _measured(table: Path, clips: Mapping[str, Path], remarks: list[str]) -> dict[str, EchoCase]:
    """Cases of EchoNet-LVH: frames from the calipers of the ventricle's inner diameter, spacing from the first."""
    rows = _rows(table, ("HashedFileName", "Calc"), ("CalcValue", "Frame", "X1", "X2", "Y1", "Y2"), remarks)
    cases = {}
    for name, part in rows.groupby("HashedFileName", sort=False):
        path = clips.get(str(name), table.parent / f"{name}.avi")
        found = [part[part["Calc"] == calc] for calc in (DIASTOLE, SYSTOLE)]
        if found[0].empty or found[1].empty:
            cases[str(name)] = EchoCase(str(name), (path,))
            continue
        caliper = found[0].iloc[0]
        pixels = float(np.hypot(caliper["X1"] - caliper["X2"], caliper["Y1"] - caliper["Y2"]))
        frames = tuple(int(rows_.iloc[0]["Frame"]) for rows_ in found)
        spacing = 10 * caliper["CalcValue"] / pixels if pixels > 0 and caliper["CalcValue"] > 0 else 1.0
        cases[str(name)] = EchoCase(str(name), (path,), frames=(frames[0], frames[1]), spacing=float(spacing))
    return cases


def _rows(table: Path, words: Sequence[str], numbers: Sequence[str], remarks: list[str]) -> pd.DataFrame:
    """The table with its columns of numbers as floats, without the rows that lack something, which a remark counts.

    Raises:
        ValueError: naming the table, where it has no such column or other things than numbers there.
    """
    rows = pd.DataFrame(read_table(table, ()))
    if missing := [column for column in (*words, *numbers) if column not in rows]:
        raise ValueError(f"{table}: has no column {', '.join(missing)}; download it again.")
    try:
        rows = rows.astype(dict.fromkeys(numbers, float))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{table}: {', '.join(numbers)} must be numbers: {error}; download it again.") from error
    needed = [*words, *numbers]
    whole = rows.replace([np.inf, -np.inf], np.nan).dropna(subset=needed)
    if lacking := len(rows) - len(whole):
        first = rows.index.difference(whole.index)[0]
        remarks.append(
            f"{table}: {lacking} rows lack one of {', '.join(needed)}, the first is row {first + 1}, "
            f"of {rows.loc[first, words[0]] or 'no clip'}."
        )
    return whole


def write_echo_pairs(
    cases: Iterable[EchoCase],
    output_dir: str | Path,
    pairing: Pairing,
    name: str,
    labelled: bool = False,
    workers: Workers | None = None,
    progress: bool = False,
) -> tuple[Path, list[str]]:
    """Write both frames of every case as NIfTI, and the datalist of pairs end-diastole (moving) to end-systole.

    A case that can't be read is left out.

    Args:
        cases: see :py:func:`find_echonet_cases` and :py:func:`find_camus_cases`.
        output_dir: folder to write; must not hold a datalist yet.
        pairing: what divides the subjects counts here.
        name: of the data, noted in the datalist.
        labelled: leave out cases without a label of both frames: pairs of one datalist are measured alike.
        workers: who reads and writes; by default this process, one case after the other.
        progress: show a bar.

    Returns:
        path of the datalist, and why cases were left out, a line each, also noted in the datalist.

    Raises:
        FileExistsError: when the folder holds a datalist already.
        ValueError: when no case can be read.
    """
    refuse_existing(output_dir)
    with new_files(output_dir, DATALIST) as folder:
        store = partial(_store, folder=folder, labelled=labelled)
        found = share(store, cases, "case", folder, workers, progress)
        left_out = [reason for reason in found if isinstance(reason, str)]
        pairs = [pair for pair in found if not isinstance(pair, str)]
        if not pairs:
            raise ValueError(f"none of the {len(left_out)} cases can be read, the first: {left_out[0]}")
        write_datalist(
            folder / DATALIST, split_pairs(pairs, pairing), name=name, left_out=left_out, **pairing.properties()
        )
    return Path(output_dir) / DATALIST, left_out


def _store(case: EchoCase, folder: Path, labelled: bool) -> Pair | str:
    """Write both frames of a case; or why it is left out."""
    try:
        if labelled and not case.labelled:
            raise ValueError(f"{case.files[0]}: has no label of both frames, which other cases have.")
        frames = read_echo_case(case)
    except (OSError, ValueError) as error:
        return str(error)
    place = "/".join(filter(None, ("frames", case.subject, case.view)))
    return pair_of(*(write_item(folder, place, frames, k) for k in (0, 1)), subject=case.subject)


def _either(folder: Path, stem: str) -> Path | None:
    """The file of this name in one of CAMUS's two formats."""
    return next((path for suffix in (".mhd", ".nii.gz") if (path := folder / f"{stem}{suffix}").is_file()), None)


def _area(outline: NDArray[np.floating]) -> float:
    """Area of a polygon ``(N, 2)``."""
    x, y = outline.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _inside(outline: NDArray[np.floating], shape: Sequence[int]) -> NDArray[np.uint8]:
    """Mask ``(X, Y)`` of a polygon ``(N, 2)`` of columns and rows."""
    mask = Image.new("L", (shape[0], shape[1]))
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in outline], fill=1)
    return np.asarray(mask).T
