"""Commands that make data sets: from raw ones, downloaded or generated."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fmirnet_monai as fm

DRAWN = ("split", "fractions", "seed")  # what draws sections at random, where --sections does not name them


def prepare_chaos(
    *,
    source_dir: str,
    output_dir: str,
    modality: str = "CT",
    label_id: int | None = None,
    spatial_dims: int = 2,
    r: float = 0.15,
    split: str = "subject",
    fractions: Sequence[float] = (0.7, 0.2, 0.1),
    seed: int = 0,
    sections: str | None = None,
    min_label_area: float = 500.0,
    partners: int | None = None,
    volumes: bool = False,
    neighbours: int | None = None,
    annotated: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Write slices (or volumes) and a datalist of pairs from the CHAOS data as downloaded.

    Args:
        source_dir: the unpacked CHAOS archive, or any folder inside it.
        output_dir: folder to write; gets datalist.json when all images are there.
        modality: CT, T2SPIR, T1DUAL_in or T1DUAL_out.
        label_id: the label to keep (CT: 1 is the liver; MR: 1 liver, 2 right and 3 left kidney, 4 spleen); default all.
        spatial_dims: 2 pairs slices of one volume, 3 pairs volumes of different subjects.
        r: annotated fraction of the slices, in (0, 1]; the volume is divided into r x slices groups, 2-D only.
        split: subject keeps a subject in one section; pair draws pairs at random, as the paper does.
        fractions: shares of training, validation and test, such as 0.7,0.2,0.1.
        seed: of the split.
        sections: which subjects each section has, in place of split, fractions and seed: the name of a data set that
            this package lists, such as btcv, or a JSON file with lists of subjects under training, validation and test.
        min_label_area: leave out slices with less labelled area, in square mm, 2-D only.
        partners: pair each volume with so many others of its section; default all, 3-D only.
        volumes: write the whole volumes too, for segmentation and label propagation, 2-D only.
        neighbours: pair each slice with the next so many, in place of r, 2-D only.
        annotated: so many annotated slices of each volume, in place of r, 2-D only.
        workers: so many processes of this computer, which share its cores; by default one volume after the other.
        scheduler: a Dask cluster, as in register.
    """
    cases = fm.data.find_chaos_cases(source_dir, modality)
    named = _sections(sections, [fm.data.chaos_subject(case, modality) for case in cases])
    pairing = fm.data.Pairing(
        spatial_dims, r, split, fractions, seed, min_label_area, partners, named, neighbours, annotated
    )
    read = functools.partial(fm.data.read_chaos_case, modality=modality, label_id=label_id)
    sharing = fm.data.Sharing(read, workers=fm.workers.Workers(workers, scheduler), progress=True)
    print(fm.data.write_pairs(cases, output_dir, pairing, volumes, sharing, name=f"CHAOS {modality}"))


def prepare_folder(
    *,
    output_dir: str,
    source_dir: str | None = None,
    images: str = "image_*",
    labels: str = "label_*",
    table: str | None = None,
    label_id: int | None = None,
    intensity_scale: float = 1.0,
    intensity_offset: float = 0.0,
    percentiles: Sequence[float] | None = None,
    spatial_dims: int = 2,
    r: float = 0.15,
    split: str = "subject",
    fractions: Sequence[float] = (0.7, 0.2, 0.1),
    seed: int = 0,
    sections: str | None = None,
    min_label_area: float = 500.0,
    partners: int | None = None,
    volumes: bool = False,
    neighbours: int | None = None,
    annotated: int | None = None,
    subjects: Sequence[str] | None = None,
    label_numbers: Sequence[int] | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Write slices (or volumes) and a datalist of pairs from your own volumes, in any format ITK reads.

    Give either a folder with name patterns or a table of paths.

    Args:
        output_dir: folder to write; gets datalist.json when all images are there.
        source_dir: folder of image (and label) files, or of DICOM series folders.
        images: pattern of the images with one *, which names the subject, such as "imagesTr/*.nii.gz".
        labels: pattern of the labels with one *; "" for no labels.
        table: CSV or JSON file with the columns image and, if wanted, label and subject; replaces source_dir.
        label_id: the label to keep, as 1; default all.
        intensity_scale: factor on the stored intensities (for windowed 8-bit CT of -125 to 275 HU: 1.5686).
        intensity_offset: added after scaling (in the same example: -125).
        percentiles: two of each volume's, such as 0.5,99.5, brought to 0 and 1000 in their place, for MR and other
            images without absolute intensities; a bundle then takes --window "[0,1000]".
        spatial_dims: 2 pairs slices of one volume, 3 pairs volumes of different subjects.
        r: annotated fraction of the slices, in (0, 1]; the volume is divided into r x slices groups, 2-D only.
        split: subject keeps a subject in one section; pair draws pairs at random, as the paper does.
        fractions: shares of training, validation and test, such as 0.7,0.2,0.1.
        seed: of the split.
        sections: which subjects each section has, in place of split, fractions and seed: the name of a data set that
            this package lists, such as btcv, or a JSON file with lists of subjects under training, validation and test.
        min_label_area: leave out slices with less labelled area, in square mm, 2-D only.
        partners: pair each volume with so many others of its section; default all, 3-D only.
        volumes: write the whole volumes too, for segmentation and label propagation, 2-D only.
        neighbours: pair each slice with the next so many, in place of r, 2-D only.
        annotated: so many annotated slices of each volume, in place of r, 2-D only.
        subjects: names of those to take, such as "03,08,13"; default all.
        label_numbers: new numbers of the labels 1, 2, … in turn, 0 to leave one out, so that sets which number their
            labels differently can be merged; default as they are.
        workers: as in prepare chaos.
        scheduler: a Dask cluster, as in register.
    """
    if (source_dir is None) == (table is None):
        raise ValueError("give either --source_dir or --table.")
    if percentiles is not None and (intensity_scale, intensity_offset) != (1.0, 0.0):
        raise ValueError("give either --percentiles or --intensity_scale and --intensity_offset.")
    cases = fm.data.read_case_table(table) if table else fm.data.find_folder_cases(source_dir or "", images, labels)
    cases = _chosen(cases, subjects)
    named = _sections(sections, [case.subject for case in cases])
    pairing = fm.data.Pairing(
        spatial_dims, r, split, fractions, seed, min_label_area, partners, named, neighbours, annotated
    )
    read = functools.partial(
        fm.data.read_folder_case,
        label_id=label_id,
        intensity_scale=intensity_scale,
        intensity_offset=intensity_offset,
        percentiles=percentiles,
        label_numbers=label_numbers,
    )
    sharing = fm.data.Sharing(read, (fm.data.NoStructure,), fm.workers.Workers(workers, scheduler), progress=True)
    name = Path(table or source_dir or "").name
    left_out: list[str] = []
    datalist = fm.data.write_pairs(cases, output_dir, pairing, volumes, sharing, name=name, left_out=left_out)
    _report_left_out(datalist, left_out)


def prepare_pairs(
    *,
    output_dir: str,
    source_dir: str | None = None,
    moving: str = "*_moving.nii.gz",
    fixed: str = "*_fixed.nii.gz",
    moving_label: str | None = None,
    fixed_label: str | None = None,
    moving_points: str | None = None,
    fixed_points: str | None = None,
    table: str | None = None,
    spatial_dims: int = 3,
    split: str = "subject",
    fractions: Sequence[float] = (0.7, 0.2, 0.1),
    seed: int = 0,
    sections: str | None = None,
    min_label_area: float = 500.0,
    workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Write a datalist of pairs that you name, as end-diastole and end-systole of each patient.

    Give either a folder with name patterns, each with one * that names the subject, or a table of paths. A name
    without * is one file for all subjects: --moving atlas.nii.gz --fixed "*_T1.nii.gz".

    Args:
        output_dir: folder to write.
        source_dir: folder of the files.
        moving: pattern of the moving images, such as "*_ED.nii.gz".
        fixed: pattern of the fixed images.
        moving_label: pattern of the moving images' labels.
        fixed_label: pattern of the fixed images' labels.
        moving_points: pattern of the moving images' landmarks, 3-D only.
        fixed_points: pattern of the fixed images' landmarks, 3-D only.
        table: CSV or JSON file with the columns moving and fixed, and any of moving_label, fixed_label, moving_points,
            fixed_points and subject; replaces source_dir.
        spatial_dims: 3 takes the files as they are; 2 cuts both volumes into slices and pairs those of one number.
        split: subject keeps a subject in one section; pair draws pairs at random.
        fractions: shares of training, validation and test, such as 0.7,0.2,0.1.
        seed: of the split.
        sections: which subjects each section has, in place of split, fractions and seed: the name of a data set that
            this package lists, such as btcv, or a JSON file with lists of subjects under training, validation and test.
        min_label_area: leave out slices with less labelled area, in square mm, 2-D only.
        workers: as in prepare chaos, 2-D only: in 3-D nothing is cut.
        scheduler: a Dask cluster, as in register.
    """
    if (source_dir is None) == (table is None):
        raise ValueError("give either --source_dir or --table.")
    patterns = {"moving": moving, "fixed": fixed, "moving_label": moving_label, "fixed_label": fixed_label}
    patterns |= {"moving_points": moving_points, "fixed_points": fixed_points}
    given = {key: pattern for key, pattern in patterns.items() if pattern}
    pairs = fm.data.read_pair_table(table) if table else fm.data.match_pairs(source_dir or "", given)
    named = _sections(sections, [pair["subject"] for pair in pairs])
    pairing = fm.data.Pairing(
        spatial_dims, split=split, fractions=fractions, seed=seed, min_label_area=min_label_area, sections=named
    )
    name, helpers = Path(table or source_dir or "").name, fm.workers.Workers(workers, scheduler)
    print(fm.data.write_named_pairs(pairs, output_dir, pairing, name, helpers, progress=True))


def prepare_echonet(
    *,
    source_dir: str,
    output_dir: str,
    split: str = "subject",
    fractions: Sequence[float] = (0.7, 0.2, 0.1),
    seed: int = 0,
    sections: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Write end-diastole and end-systole of each clip, and a datalist of pairs, from EchoNet-Dynamic or EchoNet-LVH.

    Clips that can't be decoded, lack a frame that their table names, or have no label where others have one, are
    reported and left out.

    Args:
        source_dir: the unpacked data set, clips (*.avi) with VolumeTracings.csv or MeasurementsList.csv; without
            either, the two frames of each clip that differ most are taken.
        output_dir: folder to write.
        split: subject keeps a subject in one section; pair draws pairs at random.
        fractions: shares of training, validation and test, such as 0.7,0.2,0.1.
        seed: of the split.
        sections: which subjects each section has, in place of split, fractions and seed: the name of a data set that
            this package lists, such as btcv, or a JSON file with lists of subjects under training, validation and test.
        workers: as in prepare chaos.
        scheduler: a Dask cluster, as in register.
    """
    cases, remarks = fm.data.find_echonet_cases(source_dir)
    named = _sections(sections, [case.subject for case in cases])
    pairing = fm.data.Pairing(split=split, fractions=fractions, seed=seed, sections=named)
    labelled = any(case.labelled for case in cases)
    helpers = fm.workers.Workers(workers, scheduler)
    written = fm.data.write_echo_pairs(cases, output_dir, pairing, "EchoNet", labelled, helpers, progress=True)
    _report_left_out(*written, remarks)


def prepare_camus(
    *,
    source_dir: str,
    output_dir: str,
    views: Sequence[str] = ("2CH", "4CH"),
    split: str = "subject",
    fractions: Sequence[float] = (0.7, 0.2, 0.1),
    seed: int = 0,
    sections: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Write end-diastole and end-systole of each patient and view, and a datalist of pairs, from CAMUS as downloaded.

    Images that can't be read, or have no label where others have one, are reported and left out.

    Args:
        source_dir: the unpacked data set, in its form of .mhd or of .nii.gz.
        output_dir: folder to write.
        views: of the heart, 2CH, 4CH or both.
        split: subject keeps a subject in one section; pair draws pairs at random.
        fractions: shares of training, validation and test, such as 0.7,0.2,0.1.
        seed: of the split.
        sections: which subjects each section has, in place of split, fractions and seed: the name of a data set that
            this package lists, such as btcv, or a JSON file with lists of subjects under training, validation and test.
        workers: as in prepare chaos.
        scheduler: a Dask cluster, as in register.
    """
    cases, remarks = fm.data.find_camus_cases(source_dir, views)
    named = _sections(sections, [case.subject for case in cases])
    pairing = fm.data.Pairing(split=split, fractions=fractions, seed=seed, sections=named)
    labelled = any(case.labelled for case in cases)
    helpers = fm.workers.Workers(workers, scheduler)
    written = fm.data.write_echo_pairs(cases, output_dir, pairing, "CAMUS", labelled, helpers, progress=True)
    _report_left_out(*written, remarks)


def prepare_sliver(
    *,
    source_dir: str,
    output_dir: str,
    fractions: Sequence[float] = (0.7, 0.2, 0.1),
    seed: int = 0,
    sections: str | None = None,
    partners: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Write the scans of SLIVER07 as downloaded, and a datalist of ordered pairs of different subjects (3-D).

    Scans that can't be read, such as one whose .raw file is absent, are reported and left out.

    Args:
        source_dir: the unpacked archives, with liver-origNNN.mhd and liver-segNNN.mhd somewhere below it.
        output_dir: folder to write.
        fractions: shares of the subjects in training, validation and test, such as 0.7,0.2,0.1.
        seed: of the split.
        sections: which subjects each section has, in place of fractions and seed: the name of a data set that this
            package lists, such as btcv, or a JSON file with lists of subjects under training, validation and test.
        partners: pair each volume with so many others of its section; default all.
        workers: as in prepare chaos.
        scheduler: a Dask cluster, as in register.
    """
    cases = fm.data.find_sliver_cases(source_dir)
    named = _sections(sections, [case.subject for case in cases])
    pairing = fm.data.Pairing(3, fractions=fractions, seed=seed, partners=partners, sections=named)
    left_out: list[str] = []
    helpers = fm.workers.Workers(workers, scheduler)
    sharing = fm.data.Sharing(fm.data.read_folder_case, (OSError, ValueError), helpers, progress=True)
    datalist = fm.data.write_pairs(cases, output_dir, pairing, sharing=sharing, name="SLIVER07", left_out=left_out)
    _report_left_out(datalist, left_out)


def prepare_merge(
    *,
    datalists: Sequence[str],
    output: str,
    names: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
) -> None:
    """Join datalists section by section; every subject stays in the section its own datalist gave it.

    Args:
        datalists: two or more datalist files, separated by commas.
        output: datalist to write; paths in it are relative to its folder.
        names: one for each, put before its subjects' names, such as ct,mr: subject 01 of one is not 01 of the other.
        weights: how often training draws from each, such as 1,0.8,1.5; default by its number of pairs.
    """
    print(fm.data.merge_datalists([datalists] if isinstance(datalists, str) else datalists, output, names, weights))


def download_chaos(*, output_dir: str, archive: str = "CHAOS_Train_Sets.zip") -> None:
    """Download CHAOS from Zenodo, verify and unpack it; started again, it goes on where it broke off.

    Its terms are CC BY-NC-SA 4.0: non-commercial use, with credit.

    Args:
        output_dir: folder to write.
        archive: file of the record, CHAOS_Train_Sets.zip or CHAOS_Test_Sets.zip.
    """
    print(fm.data.download_chaos(output_dir, archive))


def phantom(
    *,
    output_dir: str,
    subjects: int = 8,
    shape: Sequence[int] = (192, 192, 40),
    spacing: Sequence[float] = (2.0, 2.0, 3.0),
    seed: int = 0,
    layout: str = "chaos",
) -> None:
    """Write the generated sample: abdomen-like volumes as DICOM and PNG in the layout of CHAOS CT, or of SLIVER07.

    Args:
        output_dir: folder to write.
        subjects: number of volumes.
        shape: voxels of each along left, back and head.
        spacing: mm along the same axes.
        seed: another seed gives other anatomies.
        layout: chaos, or sliver for .mhd and .raw files.
    """
    print(fm.data.write_phantom(output_dir, subjects, shape, spacing, seed, layout))


def phantom_echonet(*, output_dir: str, subjects: int = 40, frames: int = 32, seed: int = 0) -> None:
    """Write generated echocardiograms: clips of a beating ventricle as .avi and CSV in the layout of EchoNet-Dynamic.

    Args:
        output_dir: folder to write.
        subjects: number of clips.
        frames: of each clip, one beat.
        seed: another seed gives other hearts.
    """
    print(fm.data.write_echo_phantom(output_dir, subjects, frames, seed))


def _sections(source: str | None, subjects: Sequence[str]) -> dict[str, str] | None:
    """The section of each subject by --sections; on stderr, which subjects it names are not in the data."""
    if source is None:
        return None
    sections = fm.data.read_sections(source)
    fm.data.require_sections(dict.fromkeys(subjects), sections)
    if absent := [subject for subject in sections if subject not in subjects]:
        first = f"{len(absent)} of {len(sections)} subjects of {source} are not in the data, the first {absent[0]}."
        print(f"sections: {first}", file=sys.stderr)
    return sections


def _chosen(cases: list[Any], subjects: Sequence[str] | None) -> list[Any]:
    """The cases of the subjects that are named, all by default."""
    if subjects is None:
        return cases
    if absent := set(subjects) - {case.subject for case in cases}:
        raise ValueError(
            f"subjects: there is no {min(absent)} among the {len(cases)}; the first is {cases[0].subject}."
        )
    return [case for case in cases if case.subject in subjects]


def _report_left_out(datalist: Path, left_out: Sequence[str], remarks: Sequence[str] = ()) -> None:
    """Where the datalist is, and on stderr what is missing in it and why."""
    for line in [*remarks, *(f"left out: {reason}" for reason in left_out)]:
        print(line, file=sys.stderr)
    print(f"{datalist}" + (f" ({len(left_out)} left out)" if left_out else ""))
