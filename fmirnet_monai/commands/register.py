"""Commands that register images."""

from __future__ import annotations

import os
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import fmirnet_monai as fm

from .say import note, print_values, say_inversion, say_verdict, say_verdicts

SHOWN = ("ssim", "dice", "tre_mean", "folding")  # of the demo's metrics


def demo(*, output_dir: str | None = None, seed: int = 0, open: bool | None = None) -> None:  # noqa: A002
    """Register a generated pair, which takes seconds and no data, and open the page that shows how it went.

    Args:
        output_dir: folder to write; by default a new one among the system's temporary files.
        seed: another seed gives another pair.
        open: open the page in the browser; by default where there is a screen and a terminal.
    """
    folder = tempfile.mkdtemp(prefix="fmirnet_demo_") if output_dir is None else output_dir
    result = fm.demo.run_demo(folder, seed)
    print_values({name: value for name, value in result.metrics.items() if name.removeprefix("before_") in SHOWN})
    say_verdict(result.verdict)
    page = Path(folder).absolute() / "report.html"
    screen = sys.stdout.isatty() and (sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ)
    if (screen if open is None else open) and not webbrowser.open(page.as_uri()):
        note("there is no browser that could be opened.")
    print(page)


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
            say_verdicts(table["verdict"].value_counts())
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
        note(text)
    if metrics:
        print_values(result.metrics)
        say_verdict(result.verdict)
    if inverse:
        say_inversion(result.inversion)
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
        print_values(values)
        say_verdicts(verdicts)
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


def _workers(count: int | None, scheduler: str | None, datalist: str | None) -> fm.workers.Workers:
    """Who works on a datalist; ValueError where there is none."""
    workers = fm.workers.Workers(count, scheduler)
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
