"""Commands on transforms, and on what they are applied to."""

from __future__ import annotations

from collections.abc import Sequence

import fmirnet_monai as fm

from .say import note, print_values, say_inversion


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
        note(f"{unseen:.1f} % of {output} lie beyond the image or the transform's grid: nothing is known there.")
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
        note(f"{outside:.1f} % of {output} lead out of a field's grid, beyond which it moves nothing, as in ITK.")
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
    say_inversion(fm.workflow.invert_file(transform, output, reference, (moving, fixed)))
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
    print_values(fm.workflow.jacobian_file(transform, output, reference, (moving, fixed)))
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
    print_values(fm.workflow.measure_files(files, output))
