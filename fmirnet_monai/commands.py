"""The commands of ``fmirnet``; each is a thin layer over a function of the package.

What they work with is loaded when one runs: reading the words of a command line, or its help, needs nothing of it.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fmirnet_monai as fm
from fmirnet_monai.output import require_folder

if TYPE_CHECKING:
    from fmirnet_monai.registration import Verdict
    from fmirnet_monai.spatial.roundtrip import Inversion

SHOWN = ("ssim", "dice", "tre_mean", "folding")  # of the demo's metrics


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
    sharing = fm.data.Sharing(read, workers=fm.parallel.Workers(workers, scheduler), progress=True)
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
    sharing = fm.data.Sharing(read, (fm.data.NoStructure,), fm.parallel.Workers(workers, scheduler), progress=True)
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
    name, helpers = Path(table or source_dir or "").name, fm.parallel.Workers(workers, scheduler)
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
    helpers = fm.parallel.Workers(workers, scheduler)
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
    helpers = fm.parallel.Workers(workers, scheduler)
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
    helpers = fm.parallel.Workers(workers, scheduler)
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


def publish(*, weights: str, bundle_dir: str, variant: str | None = None) -> None:
    """Put the weights of a training run into a bundle's models folder, after checking that its network loads them.

    Args:
        weights: model.pt of a run.
        bundle_dir: the bundle, a folder with configs/inference.json.
        variant: config in its configs/variants that the run was made by.
    """
    print(fm.bundle.publish_weights(weights, bundle_dir, variant))


def bundle_export(bundle: str, *, output_dir: str, trust_bundle: bool = False) -> None:
    """Write a bundle as a zip that needs MONAI but not this package: code, weights, TorchScript, ONNX, checksums.

    The exported networks are compared with the bundle's own before anything is written.

    Args:
        bundle: name or folder of the bundle.
        output_dir: folder to write NAME_vVERSION.zip into.
        trust_bundle: as in register.
    """
    require_folder(output_dir)
    print(fm.export.export_bundle(bundle, output_dir, trust_bundle))


def bundle_zoo(bundle: str, *, output_dir: str, trust_bundle: bool = False) -> None:
    """Write what a pull request to MONAI's model zoo takes, after the zoo's checks passed without this package.

    Args:
        bundle: name or folder of the bundle.
        output_dir: folder to write the folder NAME into: models/NAME and its unit test as they go into the zoo's
            repository, PULL_REQUEST.md and CHECKS.md.
        trust_bundle: the checks run what the bundle's configs say; true is needed for any but the package's own.
    """
    require_folder(output_dir)
    _note("the zoo's checks follow; its unit test trains an epoch, which takes a minute or more.")
    print(fm.zoo.write_zoo_folder(bundle, output_dir, trust_bundle))


def bundle_copy(bundle: str, *, output_dir: str) -> None:
    """Copy a bundle to a folder of its name, where it can be changed and trained.

    Args:
        bundle: name or folder of the bundle.
        output_dir: folder that gets the copy.
    """
    print(fm.bundle.copy_bundle(bundle, output_dir))


def demo(*, output_dir: str | None = None, seed: int = 0, open: bool | None = None) -> None:  # noqa: A002
    """Register a generated pair, which takes seconds and no data, and open the page that shows how it went.

    Args:
        output_dir: folder to write; by default a new one among the system's temporary files.
        seed: another seed gives another pair.
        open: open the page in the browser; by default where there is a screen and a terminal.
    """
    folder = tempfile.mkdtemp(prefix="fmirnet_demo_") if output_dir is None else output_dir
    result = fm.demo.run_demo(folder, seed)
    _print_values({name: value for name, value in result.metrics.items() if name.removeprefix("before_") in SHOWN})
    _say_verdict(result.verdict)
    page = Path(folder).absolute() / "report.html"
    screen = sys.stdout.isatty() and (sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ)
    if (screen if open is None else open) and not webbrowser.open(page.as_uri()):
        _note("there is no browser that could be opened.")
    print(page)


def completion(shell: str) -> None:
    """Print the completion of commands and options for a shell: source <(fmirnet completion bash).

    Args:
        shell: bash, zsh, fish, tcsh or powershell.
    """
    print(fm.completion.completion_script(COMMANDS, shell))


def register(
    *,
    output_dir: str,
    moving: str | None = None,
    fixed: str | None = None,
    moving_label: str | None = None,
    fixed_label: str | None = None,
    moving_points: str | None = None,
    fixed_points: str | None = None,
    moving_mask: str | None = None,
    fixed_mask: str | None = None,
    moving_channels: str | None = None,
    fixed_channels: str | None = None,
    guide: Sequence[str] = (),
    features: str | None = None,
    label_weight: float = 1.0,
    point_weight: float = 1.0,
    channel_weight: float = 1.0,
    feature_weight: float = 1.0,
    structure_weight: float = 1.0,
    datalist: str | None = None,
    section: str = "test",
    overwrite: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    bundle: str | None = None,
    variant: str | None = None,
    trust_bundle: bool = False,
    affine: bool | str = "auto",
    refine: int | None = None,
    slices: bool | None = None,
    intensity: str = "auto",
    similarity: str = "auto",
    optimizer: str = "dense",
    flips: bool = False,
    fill: float | None = None,
    antialias: bool = False,
    inverse: bool = True,
    metrics: bool = True,
    uncertainty: bool = False,
    device: str = "auto",
    report: bool = True,
    dtype: str = "float32",
    format: str = "nifti",  # noqa: A002
) -> None:
    """Register a moving to a fixed image, or all pairs of a datalist.

    Writes warped.nii.gz, displacement.nii.gz (ITK form: mm, LPS, on the fixed image's grid), transform.h5 (the same map
    as ITK composite of field and affine stage), inverse_displacement.nii.gz (on the moving image's grid), metrics.json,
    report.html and, where there is one, warped_label.nii.gz, warped_points.csv and inside.nii.gz (0 where the map leads
    out of the moving image, so that nothing is known there). Images: NIfTI, MHA, MHD, NRRD, a folder with a DICOM
    series, PNG.

    Args:
        output_dir: folder to write; with a datalist each pair gets a folder in it, and summary.csv is written.
        moving: image to warp.
        fixed: image it is warped onto, of any size, spacing and orientation.
        moving_label: label map of the moving image, warped with it.
        fixed_label: label map of the fixed image; with both, Dice, HD95 and ASSD are measured.
        moving_points: landmarks of the moving image (.csv with x,y,z in LPS mm, .mrk.json, .fcsv, .vtk).
        fixed_points: landmarks of the fixed image in the same order; with both, the TRE is measured.
        moving_mask: mask on any grid in the moving image's space; where it is 0 nothing is compared.
        fixed_mask: the same of the fixed image.
        moving_channels: further images of what the moving image shows, such as another sequence, on any grid in its
            space, separated by commas; they are compared beside it.
        fixed_channels: as many of the fixed image, in the same order.
        guide: what of the pair guides optimisation and refinement beside the images: labels, points or labels,points.
            The metrics of what guides say only how closely it was followed and are named guided_...; labels that one
            side lacks and landmarks that neither the images nor their neighbours speak for are told.
        features: file of a TorchScript or exported program that gives features (1, F, *size) of an image
            (1, 1, *spatial) in [0, 1]; both images' are compared beside them.
        label_weight: how strongly labels pull as guide at most, where the images pull with 1.
        point_weight: the same of landmarks.
        channel_weight: the same of the further channels.
        feature_weight: the same of the features.
        structure_weight: the same of the structures that a bundle's network finds, in a refinement.
        datalist: JSON datalist of pairs, in place of moving and fixed. A pair that is there already, made of the same
            files with the same settings, is not done again.
        section: section of the datalist.
        overwrite: with a datalist, do again what is there.
        workers: with a datalist, so many processes of this computer, which share its cores; by default as many pairs
            are registered at a time as torch has threads.
        scheduler: with a datalist, a Dask cluster in their place, such as tcp://host:8786; it must see the same files
            (pip install 'fmirnet_monai[cluster]').
        bundle: name or folder of a bundle, or none for direct optimisation; by default fmirnet_universal in 2-D and
            slice by slice, and fmirnet_sliver for volumes of a kind that it knows (abdominal CT and MR, hippocampi),
            unless masks, guides, channels, features, a similarity or an optimizer are given, and direct optimisation
            otherwise.
        variant: config in the bundle's configs/variants, such as images_alone of fmirnet_universal.
        trust_bundle: run what the bundle's config says. By default it is read as data: nothing of it is evaluated, and
            only networks, losses and intensities of torch, MONAI and this package are made from it.
        affine: stage before it: auto (what the bundle asks for, otherwise none), off, translation, rigid, or affine
            (the same as true).
        refine: steps of refinement of a bundle's field, 0 for none; by default as many as the bundle says.
        slices: register volumes slice by slice, along the axis of the largest spacing; by default only those of less
            than 16 slices.
        intensity: auto, bundle (its own window), percentiles (of each image), or a window such as -125,275.
        similarity: that the field is optimised or refined by: auto (mean squares and a local similarity), mse, lncc,
            ssim, or for images of different modalities, such as CT and MR, mi (mutual information) or mind (MIND-SSC).
        optimizer: of direct optimisation: dense, or affine.
        flips: average a bundle's field over the mirror images of the pair, for four passes of the network in 2-D.
        fill: value of warped.nii.gz beyond the moving image; by default the moving image's smallest.
        antialias: smooth the moving image before warping where the fixed image is coarser; ITK and ANTs then give
            another image from the same transform. What is registered always is.
        inverse: make and write the inverse map.
        metrics: measure, give a verdict (good, look or failed, with reasons), and check whether direct optimisation
            would do better than a bundle for slices.
        uncertainty: write uncertainty.nii.gz, by how many mm other ways of registering the same pair lead elsewhere;
            takes three to five registrations more.
        device: auto, cpu, cuda, cuda:1, mps.
        report: write report.html, of a datalist one more for all pairs.
        dtype: of warped.nii.gz: float32, or same: as the moving image is stored, rounded and clipped.
        format: nifti, or dicom where both images are DICOM series: then the folder warped holds the registered series
            (stored as the moving one), transform.dcm the map (a Deformable Spatial Registration, or a Spatial
            Registration where it is affine) and warped_label.dcm the label (SEG; pip install
            'fmirnet_monai[dicom]'), in place of warped.nii.gz, displacement.nii.gz and warped_label.nii.gz; all else is
            written as it is.
    """
    if unknown := [name for name in guide if name not in ("labels", "points")]:
        raise ValueError(f"guide must be labels, points or labels,points, got {unknown[0]!r}.")
    guidance = fm.registration.Guidance(
        label_weight if "labels" in guide else 0.0,
        point_weight if "points" in guide else 0.0,
        channel_weight,
        feature_weight,
        fm.registration.load_extractor(features) if features else None,
        structure_weight,
    )
    method = fm.workflow.Method(
        bundle,
        _stage(affine),
        refine,
        slices,
        intensity,
        device,
        similarity,
        optimizer,
        fill,
        antialias,
        guidance,
        flips,
        variant,
        checks=metrics,
        uncertainty=uncertainty,
        trust_bundle=trust_bundle,
    )
    outputs = fm.workflow.Outputs(report, inverse, metrics, dtype, format)
    helpers = _workers(workers, scheduler, datalist)
    if datalist is not None:
        own = {"moving": moving, "fixed": fixed, "moving_channels": moving_channels, "fixed_channels": fixed_channels}
        given = [name for name, value in own.items() if value is not None]
        if given:
            raise ValueError(f"give either --datalist or --moving and --fixed, got --datalist and --{given[0]}.")
        table = fm.datalist_files.register_datalist(datalist, section, output_dir, method, outputs, helpers, overwrite)
        done = table[table["error"] == ""].select_dtypes("number")
        print(fm.report.markdown_table(fm.report.before_and_after(done)), end="")
        if metrics and len(done):
            _say_verdicts(table["verdict"].value_counts())
        _end_of_datalist(list(table["error"]), "pairs", output_dir)
        return
    if moving is None or fixed is None:
        raise ValueError("give --moving and --fixed, or --datalist.")
    files = {
        "moving": moving,
        "fixed": fixed,
        "moving_label": moving_label,
        "fixed_label": fixed_label,
        "moving_points": moving_points,
        "fixed_points": fixed_points,
        "moving_mask": moving_mask,
        "fixed_mask": fixed_mask,
    }
    channels = {"moving_channels": moving_channels, "fixed_channels": fixed_channels}
    listed = {key: fm.workflow.split_files(text) for key, text in channels.items() if text}
    pair = {**{k: v for k, v in files.items() if v is not None}, **listed}
    result = fm.workflow.register_files(pair, output_dir, method, outputs)
    words = (result.settings[name] for name in ("method", "intensity", "volumes") if name in result.settings)
    print(f"method: {', '.join(words)}")
    for text in result.notes:
        _note(text)
    if metrics:
        _print_values(result.metrics)
        _say_verdict(result.verdict)
    if inverse:
        _say_inversion(result.inversion)
    print(output_dir)


def register_series(
    *,
    images: str,
    output_dir: str,
    reference: str = "first",
    rounds: int = 3,
    neighbours: bool = True,
    label: str | None = None,
    points: str | None = None,
    label_frame: int | None = None,
    fields: bool = False,
    bundle: str | None = None,
    variant: str | None = None,
    trust_bundle: bool = False,
    affine: bool | str = "auto",
    refine: int | None = None,
    slices: bool | None = None,
    intensity: str = "auto",
    similarity: str = "auto",
    optimizer: str = "dense",
    flips: bool = False,
    fill: float | None = None,
    antialias: bool = False,
    metrics: bool = True,
    device: str = "auto",
) -> None:
    """Register all frames of a series over time to one reference.

    Each frame starts from the map of its neighbour on the reference's side. Writes warped.nii.gz (4 axes, with the time
    axis of the series), frame_000_transform.h5, … (ITK composite, one a frame), metrics.json, series.csv (a row a
    frame) and, where there is one, inside.nii.gz, reference.nii.gz (the mean), labels.nii.gz (the label on every
    frame), warped_label.nii.gz (on the reference), frame_000_points.csv, … and warped_points.csv. Frames are counted
    from 0.

    Args:
        images: a NIfTI, MHA or NRRD of 4 axes, a clip (.avi), or a quoted pattern of one image a frame, such as
            "t*.nii.gz", in the order of the numbers in their names.
        output_dir: folder to write. A run that was killed goes on where it was when it is started again.
        reference: first, the number of a frame, or mean: a mean image from which no frame's displacement is preferred.
        rounds: of registering to the mean, each to the mean of the round before.
        neighbours: start from the neighbour's map; false registers each frame by itself.
        label: label map drawn on one frame, carried to all others.
        points: landmarks of one frame, carried likewise (.csv with x,y,z in LPS mm, .mrk.json, .fcsv, .vtk).
        label_frame: the frame that label and points belong to; by default the reference.
        fields: write frame_000_displacement.nii.gz, …, too.
        bundle: as in register, as are all that follow; the method is chosen once, for all frames.
        variant: config in the bundle's configs/variants.
        trust_bundle: as in register.
        affine: auto, off, translation, rigid, or affine (the same as true).
        refine: steps of refinement of a bundle's field.
        slices: register volumes slice by slice.
        intensity: auto, bundle, percentiles (of each frame), or a window such as -125,275.
        similarity: auto, mse, lncc, ssim, mi or mind.
        optimizer: of direct optimisation: dense, or affine.
        flips: average a bundle's field over the mirror images of the pair.
        fill: value of warped.nii.gz beyond a frame; by default that frame's smallest.
        antialias: as in register.
        metrics: measure, and give each frame a verdict.
        device: auto, cpu, cuda, cuda:1, mps.
    """
    method = fm.workflow.Method(
        bundle,
        _stage(affine),
        refine,
        slices,
        intensity,
        device,
        similarity,
        optimizer,
        fill,
        antialias,
        flips=flips,
        variant=variant,
        trust_bundle=trust_bundle,
    )
    options = fm.series_files.SeriesOptions(reference, rounds, neighbours, label, points, label_frame, fields, metrics)
    values, verdicts = fm.series_files.register_series_files(images, output_dir, method, options)
    if metrics:
        _print_values(values)
        _say_verdicts(verdicts)
    print(output_dir)


def propagate(
    *,
    image: str | None = None,
    label: str | None = None,
    output: str | None = None,
    confidence: str | None = None,
    datalist: str | None = None,
    output_dir: str | None = None,
    section: str = "test",
    overwrite: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    axis: int | None = None,
    slices: Sequence[int] | None = None,
    label_ids: Sequence[int] | None = None,
    bundle: str | None = None,
    trust_bundle: bool = False,
    refine: int | None = None,
    train_epochs: int = 0,
    intensity: str = "auto",
    device: str = "auto",
) -> None:
    """Label a whole volume from a few annotated slices, or all volumes of a datalist.

    Each slice between two annotated ones is labelled from both: they are registered to it, and their outlines are
    warped and blended by nearness and by how well the registration fits. Annotated slices stay as they are; slices
    beyond the outermost annotated ones have no neighbour on one side and are left empty.

    Args:
        image: volume.
        label: label map on the image's grid, drawn on a few slices and 0 elsewhere; several labels at once.
        output: label map to write.
        confidence: map to write of the estimated probability that a voxel's label is right; by default beside the
            output, with _confidence in its name.
        datalist: JSON datalist, a section of which lists items with image and label, in place of these; a volume that
            is there already, made of the same files with the same settings, is not done again.
        output_dir: with a datalist, folder to write; each volume gets a folder in it with label.nii.gz,
            confidence.nii.gz and propagation.json, and summary.csv is written.
        section: section of the datalist.
        overwrite: with a datalist, do again what is there.
        workers: with a datalist, so many processes of this computer, which share its cores; by default one volume is
            labelled after the other, several slices at a time.
        scheduler: with a datalist, a Dask cluster, as in register.
        axis: array axis along which slices were annotated, 0, 1 or 2; by default found from the label.
        slices: indices of the annotated slices, where some of them are rightly empty; by default those with a label.
        label_ids: labels to propagate; default all.
        bundle: name or folder of a registration bundle, by default fmirnet_universal; none for direct optimisation,
            which is slower and needs no training.
        trust_bundle: as in register.
        refine: steps of refinement of a bundle's field, 0 for none; by default as many as the bundle says.
        train_epochs: passes in which a segmentation network learns the propagated labels of this volume; the answer is
            then both together, and what is propagated is written before. 30 is a good number and takes some minutes
            without a GPU; 0 for none.
        intensity: auto, bundle (its own window), percentiles (of the volume), or a window such as -125,275.
        device: auto, cpu, cuda, cuda:1, mps.
    """
    method = fm.workflow.Method(bundle, refine=refine, intensity=intensity, device=device, trust_bundle=trust_bundle)
    options = fm.workflow.PropagationOptions(axis, slices, label_ids, train_epochs)
    helpers = _workers(workers, scheduler, datalist)
    if datalist is not None:
        single = {"image": image, "label": label, "output": output, "confidence": confidence}
        if given := [name for name, value in single.items() if value is not None]:
            raise ValueError(f"give either --datalist or --image and --label, got --datalist and --{given[0]}.")
        if output_dir is None:
            raise ValueError("give --output_dir, the folder that the volumes of a datalist are labelled in.")
        table = fm.datalist_files.propagate_datalist(datalist, section, output_dir, method, options, helpers, overwrite)
        _end_of_datalist(list(table["error"]), "volumes", output_dir)
        return
    if image is None or label is None or output is None:
        raise ValueError("give --image, --label and --output, or --datalist and --output_dir.")
    if output_dir is not None:
        raise ValueError("output_dir: is for a datalist; name the label map to write by --output.")
    result = fm.workflow.propagate_file(image, label, output, method, options, confidence)
    print(result.annotation.describe(result.label.shape[result.annotation.axis + 1]))
    print(output)


def warp(
    *,
    image: str,
    transform: str,
    output: str,
    reference: str | None = None,
    interpolation: str = "linear",
    fill: float | None = None,
    antialias: bool = False,
    dtype: str = "float32",
    moving: str | None = None,
    fixed: str | None = None,
) -> None:
    """Resample an image or a label map through a transform, once.

    Args:
        image: image or label map of the moving side.
        transform: displacement field, transform of ITK (.h5, .tfm, .mat, .txt), FSL (.mat, .nii.gz), FreeSurfer (.lta)
            or AFNI (.aff12.1D, .nii.gz), TransformParameters of elastix, or a DICOM registration (.dcm).
        output: file to write.
        reference: image whose grid the result gets; by default the field's own grid.
        interpolation: linear for images, nearest for labels.
        fill: value beyond the image; by default the image's smallest, and 0 for labels.
        antialias: smooth the image first where the result is coarser; ITK, SimpleITK and ANTs, given the same
            transform, don't.
        dtype: float32 (labels: the smallest type that holds them), or same: as the image is stored, rounded and
            clipped.
        moving: moving image that a transform of FSL or AFNI was made for; others need none.
        fixed: fixed image that a transform of FSL or AFNI was made for.
    """
    images = (moving, fixed)
    unseen = fm.workflow.warp_file(image, transform, output, reference, interpolation, fill, antialias, dtype, images)
    if unseen:
        _note(f"{unseen:.1f} % of {output} lie beyond the image or the transform's grid: nothing is known there.")
    print(output)


def warp_points(
    *,
    points: str,
    transform: str,
    output: str,
    reference: str | None = None,
    moving: str | None = None,
    fixed: str | None = None,
) -> None:
    """Take points through a transform, from the space it starts in (the fixed image's) to the one it points to.

    Points of the moving image go the other way: give the inverse displacement.

    Args:
        points: .csv with the columns x,y,z in LPS mm, .mrk.json or .fcsv of 3D Slicer, or .vtk.
        transform: as in warp.
        output: .csv or .mrk.json to write, LPS mm.
        reference: image that the points have to lie on; by default the field's own grid, where it has one.
        moving: as in warp.
        fixed: as in warp.
    """
    print(fm.workflow.warp_points_file(points, transform, output, reference, (moving, fixed)))


def compose(
    *,
    transforms: Sequence[str],
    output: str,
    reference: str | None = None,
    format: str | None = None,  # noqa: A002
    moving: str | None = None,
    fixed: str | None = None,
) -> None:
    """Join transforms into one, so that an image is resampled only once; or write one in the form of another tool.

    Args:
        transforms: two or more files, separated by commas, the one that would resample the moving image first in front;
            or one alone, with --format. What is read is as in warp.
        output: displacement field to write (.nii.gz, .mha, .nrrd), on the grid of the last transform; or .h5, which
            holds each transform as it is; or .tfm, .mat or .txt where all are affine.
        reference: image whose grid a displacement field gets instead.
        format: itk; fsl (.mat where all are affine, or .nii.gz, a field of FNIRT); lta, of FreeSurfer (.lta, affine);
            afni (.aff12.1D, affine, or .nii.gz, a field of 3dQwarp). By default what the suffix says, else itk.
        moving: moving image of the result, which fsl and lta need, afni where it is oblique; and of the transform to be
            read, where it is of FSL or AFNI and the only one.
        fixed: fixed image, likewise, whose grid a field of fsl or afni gets.
    """
    outside = fm.workflow.compose_files(transforms, output, reference, format, (moving, fixed))
    if outside:
        _note(f"{outside:.1f} % of {output} lead out of a field's grid, beyond which it moves nothing, as in ITK.")
    print(output)


def invert(
    *,
    transform: str,
    output: str,
    reference: str | None = None,
    moving: str | None = None,
    fixed: str | None = None,
) -> None:
    """Invert a transform and say how well it went.

    Args:
        transform: as in warp.
        output: displacement field to write (.nii.gz, .mha, .nrrd) or .h5; .tfm, .mat or .txt for an affine transform.
        reference: image whose grid the result gets, usually the moving image; by default the field's own grid.
        moving: as in warp.
        fixed: as in warp.
    """
    _say_inversion(fm.workflow.invert_file(transform, output, reference, (moving, fixed)))
    print(output)


def jacobian(
    *,
    transform: str,
    output: str,
    reference: str | None = None,
    moving: str | None = None,
    fixed: str | None = None,
) -> None:
    """Write the Jacobian determinant of a transform as an image: 1 keeps volume, 0 or less folds.

    Args:
        transform: as in warp.
        output: image to write.
        reference: image whose grid the transform is sampled on; by default the field's own grid.
        moving: as in warp.
        fixed: as in warp.
    """
    _print_values(fm.workflow.jacobian_file(transform, output, reference, (moving, fixed)))
    print(output)


def metrics(
    *,
    image: str | None = None,
    fixed_image: str | None = None,
    label: str | None = None,
    fixed_label: str | None = None,
    moving_points: str | None = None,
    fixed_points: str | None = None,
    transform: str | None = None,
    mask: str | None = None,
    reference: str | None = None,
    output: str | None = None,
    moving: str | None = None,
    fixed: str | None = None,
) -> None:
    """Measure what any registration left behind: similarity, label overlap, landmark error, folding.

    Args:
        image: warped image.
        fixed_image: image it should look like, on the same grid; SSIM, NCC and NMI after scaling by percentiles.
        label: warped label map.
        fixed_label: label map it should match: Dice, HD95 and ASSD in mm.
        moving_points: landmarks of the moving image.
        fixed_points: landmarks of the fixed image in the same order: TRE in mm, through the transform if there is one.
        transform: as in warp: folding and SDlogJ.
        mask: mask on the images' grid, such as inside.nii.gz; similarity is that of where it is not 0.
        reference: image whose grid a transform without one is measured on.
        output: JSON file to write.
        moving: as in warp.
        fixed: as in warp.
    """
    files = {"image": image, "fixed_image": fixed_image, "label": label, "fixed_label": fixed_label}
    files |= {"moving_points": moving_points, "fixed_points": fixed_points, "transform": transform}
    files |= {"mask": mask, "reference": reference, "moving": moving, "fixed": fixed}
    _print_values(fm.workflow.measure_files(files, output))


def compare(
    *,
    datalist: str,
    output_dir: str,
    methods: Sequence[str] = (
        "identity",
        "affine",
        "elastix",
        "syn",
        "demons",
        "optimise",
        "fmirnet",
        "fmirnet+refine",
    ),
    section: str = "test",
    tuned: str | None = None,
    spatial_size: int | None = None,
    count: int | None = None,
    bundle: str = "fmirnet_chaos",
    trust_bundle: bool = False,
    models_dir: str | None = None,
    affine: str = "off",
    intensity: str = "bundle",
    device: str = "auto",
    title: str = "",
    pictures: int = 3,
    memory: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Run several methods on the same pairs, measure them alike and write one table and one figure.

    Writes comparison.md, .csv (every case), .json and .png. Started again, it goes on where it broke off. A case that
    fails is marked in the table, and run again then, as is one whose files or weights have changed. "compare tune"
    finds the settings of each method first; see its --help.

    Args:
        datalist: JSON datalist of pairs.
        output_dir: folder to write.
        methods: rows, separated by commas; p-values are against the first. There are the classical identity, affine,
            elastix, syn, lddmm, demons, lcc_demons, greedy, convexadam (of volumes), optimise (no network), and the
            learned fmirnet and any config of the bundle's configs/variants, such as voxelmorph; with +refine behind a
            network, its field is refined.
        section: section of the datalist.
        tuned: JSON file of "compare tune", whose settings are taken.
        spatial_size: resample both images to square voxels, so many along the longest side; by default each image's
            own grid.
        count: only so many pairs, spread evenly; by default all.
        bundle: bundle whose networks and intensities are taken.
        trust_bundle: as in register.
        models_dir: folder of the training runs, NAME/model.pt for each learned method; by default the bundle's weights
            for fmirnet.
        affine: stage before every method but identity: off, translation, rigid or affine.
        intensity: bundle (its own map to 0..1) or percentiles of each image.
        device: auto, cpu, cuda, mps; of networks and optimisation.
        title: of the table.
        pictures: cases in the figure.
        memory: measure each method's peak memory too, on its first case, which takes some seconds a method.
        workers: so many processes of this computer, which share its cores; seconds are then not those of a case alone.
            By default one case after the other.
        scheduler: a Dask cluster, as in register.
    """
    helpers = fm.parallel.Workers(workers, scheduler)
    cases = fm.study.Cases(datalist, section, spatial_size, count)
    context = _context(bundle, models_dir, affine, intensity, device, trust_bundle, helpers)
    specs = fm.study.parse_methods(methods, tuned)
    print(fm.study.compare(cases, specs, output_dir, context, title, pictures, memory, workers=helpers))
    if failed := fm.study.failed_cases(output_dir):
        raise ValueError(
            f"cases that failed and are left out of {output_dir}/comparison.md: {len(failed)}, the first {failed[0]} "
            "Started again, they are run again."
        )


def compare_tune(
    *,
    datalist: str,
    output: str,
    methods: Sequence[str] = ("elastix", "syn", "lddmm", "demons", "optimise", "fmirnet+refine"),
    section: str = "validation",
    spatial_size: int | None = None,
    count: int = 40,
    bundle: str = "fmirnet_chaos",
    trust_bundle: bool = False,
    models_dir: str | None = None,
    max_epochs: int = 3,
    affine: str = "off",
    intensity: str = "bundle",
    device: str = "auto",
    workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Search the settings of each method on validation pairs and store the best, for "compare --tuned".

    The mean Dice decides (TRE or SSIM where there are no labels) among the settings that fold less than 1 % of the
    cells. Started again, the search goes on where it broke off.

    Args:
        datalist: JSON datalist of pairs.
        output: JSON file to write; it holds every trial.
        methods: methods to tune; each has its own small grid.
        section: section of the datalist; never the one that is compared on.
        spatial_size: as in compare.
        count: pairs to try on, spread evenly over the section.
        bundle: as in compare.
        trust_bundle: as in compare.
        models_dir: folder for the runs that try a network's loss weights; for +refine as in compare.
        max_epochs: of each of those runs.
        affine: as in compare.
        intensity: as in compare.
        device: as in compare.
        workers: so many processes of this computer, which share its cores; by default as many trials run at a time as
            torch has threads. Networks are trained by this process.
        scheduler: a Dask cluster, as in register.
    """
    helpers = fm.parallel.Workers(workers, scheduler)
    cases = fm.study.Cases(datalist, section, spatial_size, count)
    context = _context(bundle, models_dir, affine, intensity, device, trust_bundle, helpers)
    specs = fm.study.parse_methods(methods)
    print(fm.study.trials_table(fm.study.tune(cases, specs, output, context, {"max_epochs": max_epochs}, helpers)))


def table(
    *, study: str, source_dir: str, work_dir: str, results_dir: str | None = None, keep: Sequence[str] = ()
) -> None:
    """Make a whole table from raw data: prepare the pairs, tune, train and compare.

    Started again, it goes on where it broke off; nothing that is done is done again.

    Args:
        study: JSON file that describes the table, such as benchmarks/table2.json.
        source_dir: folder of the raw data sets.
        work_dir: folder for prepared data, training runs, cases and figures.
        results_dir: folder that also gets the table as .md, .csv and .json; no images.
        keep: methods, such as voxelmorph,vtn, or of a table of segmentation models, such as fcn_all,unet_all, whose
            rows in results_dir stay where their settings are the same: what took hours to train need not be run again
            to add a row.
    """
    print(fm.study.run_study(study, source_dir, work_dir, results_dir, keep))


def profile(
    *,
    bundle: str,
    spatial_size: Sequence[int] | None = None,
    batch_size: int = 1,
    variant: str | None = None,
    trust_bundle: bool = False,
    amp: bool = False,
    device: str = "auto",
    repeats: int = 3,
) -> None:
    """Print what a prediction and a training step of a bundle's network take: operations, seconds, peak memory.

    Args:
        bundle: name or folder of a registration bundle.
        spatial_size: of the images, one number for all axes or one each; default the bundle's.
        batch_size: pairs at a time.
        variant: config in the bundle's configs/variants.
        trust_bundle: as in register.
        amp: mixed precision.
        device: auto, cpu, cuda, cuda:1, mps.
        repeats: timed repetitions, of which the median is given.
    """
    size = None if spatial_size is None else tuple(spatial_size)
    chosen = str(fm.workflow.Method(device=device).torch_device())
    work = [
        fm.profile.Workload(bundle, size, batch_size, what, variant, amp, chosen, trust_bundle)
        for what in (fm.profile.PREDICTION, fm.profile.TRAINING)
    ]
    print(fm.profile.profile_table(work, repeats), end="")


def _context(
    bundle: str,
    models_dir: str | None,
    affine: str,
    intensity: str,
    device: str,
    trust_bundle: bool,
    workers: fm.parallel.Workers,
) -> fm.study.Context:
    if intensity not in ("bundle", "percentiles"):
        raise ValueError(f"intensity must be bundle or percentiles, got {intensity!r}.")
    here = workers.scheduler is None  # a cluster's workers have devices of their own
    chosen = str(fm.workflow.Method(device=device).torch_device()) if here else device
    return fm.study.Context(bundle, models_dir, affine, intensity, chosen, trust_bundle=trust_bundle)


# options that are gone, and what to know instead
GONE = {
    "skip_existing": "is what --datalist does by now: pairs of the same files and settings are not done again; "
    "leave it out, or give --overwrite true to do all again."
}
OWN = ""  # in a group of commands: what the group's name alone does
DRAWN = ("split", "fractions", "seed")  # what draws sections at random, where --sections does not name them
COMMANDS: dict[str, Any] = {
    "register": register,
    "register_series": register_series,
    "propagate": propagate,
    "warp": warp,
    "warp_points": warp_points,
    "compose": compose,
    "invert": invert,
    "jacobian": jacobian,
    "metrics": metrics,
    "compare": {OWN: compare, "tune": compare_tune},
    "table": table,
    "profile": profile,
    "prepare": {
        "chaos": prepare_chaos,
        "echonet": prepare_echonet,
        "camus": prepare_camus,
        "sliver": prepare_sliver,
        "folder": prepare_folder,
        "pairs": prepare_pairs,
        "merge": prepare_merge,
    },
    "download": {"chaos": download_chaos},
    "phantom": {OWN: phantom, "echonet": phantom_echonet},
    "bundle": {"copy": bundle_copy, "export": bundle_export, "zoo": bundle_zoo},
    "publish": publish,
    "demo": demo,
    "completion": completion,
}


def _workers(count: int | None, scheduler: str | None, datalist: str | None) -> fm.parallel.Workers:
    """Who works on a datalist; ValueError where there is none."""
    workers = fm.parallel.Workers(count, scheduler)
    if workers and datalist is None:
        raise ValueError(f"{'scheduler' if count is None else 'workers'}: share out many cases; give --datalist.")
    return workers


def _end_of_datalist(errors: Sequence[str], what: str, output_dir: str) -> None:
    """Where the summary is; ValueError where cases failed."""
    print(f"{output_dir}/summary.csv")
    if failed := [text for text in errors if text]:
        raise ValueError(
            f"{len(failed)} of {len(errors)} {what} failed, see {output_dir}/summary.csv; the first: {failed[0]} "
            "Start again to do these alone."
        )


def _stage(affine: bool | str) -> str:
    """The affine stage that --affine names."""
    return str({True: "affine", False: "off", "true": "affine", "false": "off"}.get(affine, affine))


def _print_values(values: Mapping[str, float]) -> None:
    width = max(map(len, values))
    for name, value in values.items():
        print(f"{name:{width}s}  {value:.4f}")


def _say_inversion(inversion: Inversion | None) -> None:
    """How well inverting went; None where it went exactly."""
    if inversion is None:
        return
    if inversion.missing < inversion.inside.numel():
        print(f"inverse: solved to within {inversion.residual:.4f} voxels")
    total = inversion.inside.numel()
    print(f"no inverse: {inversion.missing:,} of {total:,} voxels, which no point is mapped to")


def _say_verdict(verdict: Verdict) -> None:
    print(f"verdict: {verdict.grade}")
    for reason in verdict.reasons:
        print(f"- {reason}")


def _say_verdicts(counts: Mapping[str, int]) -> None:
    print(f"verdict: {', '.join(f'{counts.get(grade, 0)} {grade}' for grade in fm.registration.GRADES)}")


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


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
