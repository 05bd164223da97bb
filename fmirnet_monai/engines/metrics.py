"""The metrics of a registration run as Ignite handlers, before and after registration."""

from __future__ import annotations

from typing import Any

from monai.handlers import ConfusionMatrix, IgniteMetricHandler, from_engine
from monai.metrics import (
    CumulativeIterationMetric,
    DiceMetric,
    compute_average_surface_distance,
    compute_hausdorff_distance,
)

from fmirnet_monai.metrics import FoldingMetric, NCCMetric, NMIMetric, SSIMMetric, SurfaceDistanceInMM

Handlers = dict[str, IgniteMetricHandler]


def key_metric(labels: bool, organ: int | None = None) -> Handlers:
    """What the best model is chosen by: Dice of the warped label, or SSIM where there are no labels.

    Args:
        labels: the pairs have labels, one-hot under ``warped_label`` and ``target_label`` after postprocessing.
        organ: the label that counts, None for the mean of all.
    """
    return {"dice": _dice("warped_label", organ)} if labels else {"ssim": _on_images(SSIMMetric(), "warped")}


def validation_metrics() -> Handlers:
    """What is watched beside the key metric during training: NCC and folding (quick to compute)."""
    return {"ncc": _on_images(NCCMetric(), "warped"), **folding_metrics()}


def folding_metrics() -> Handlers:
    """Folded voxels (central differences) and folded cells (digital) of the field, in percent."""
    output = from_engine(["pred", "pred"])
    return {
        "folding": IgniteMetricHandler(FoldingMetric(), output_transform=output),
        "digital_folding": IgniteMetricHandler(FoldingMetric(digital=True), output_transform=output),
    }


def evaluation_metrics(labels: bool) -> Handlers:
    """All columns of the registration table; those of the unregistered pair are named ``before_…``.

    A case whose fixed label is empty has no Dice and one with either mask empty no surface distance: NaN, left out of
    the means and of n. A warped label that is empty where the fixed one is not has Dice 0. Distances are in mm.
    """
    handlers: Handlers = {}
    for prefix, image, label in (("before_", "source", "source_label"), ("", "warped", "warped_label")):
        for name, metric in {"ssim": SSIMMetric(), "ncc": NCCMetric(), "nmi": NMIMetric()}.items():
            handlers[prefix + name] = _on_images(metric, image)
        if labels:
            handlers[prefix + "dice"] = _dice(label)
            for name, surface in _surfaces().items():
                handlers[prefix + name] = IgniteMetricHandler(
                    surface, output_transform=from_engine([label, "target_label"])
                )
    return {**handlers, **folding_metrics()}


def segmentation_key_metric() -> Handlers:
    """Dice of all voxels of all slices together, so that a false spot in an empty slice counts."""
    output = from_engine(["pred", "label"])
    return {
        "dice": ConfusionMatrix(
            include_background=False, metric_name="f1 score", reduction="sum", output_transform=output
        )
    }


def segmentation_metrics() -> Handlers:
    """Dice, and HD, HD95 and ASSD in mm, of each volume; the mean over its labels."""
    output = from_engine(["pred", "label"])
    dice = DiceMetric(include_background=False, ignore_empty=True)
    return {
        "dice": IgniteMetricHandler(dice, output_transform=output),
        **{name: IgniteMetricHandler(metric, output_transform=output) for name, metric in _surfaces().items()},
    }


def _surfaces() -> dict[str, SurfaceDistanceInMM]:
    return {
        "hd": SurfaceDistanceInMM(compute_hausdorff_distance),
        "hd95": SurfaceDistanceInMM(compute_hausdorff_distance, percentile=95),
        "assd": SurfaceDistanceInMM(compute_average_surface_distance, symmetric=True),
    }


def _on_images(metric: CumulativeIterationMetric, image: str) -> IgniteMetricHandler:
    return IgniteMetricHandler(metric, output_transform=from_engine([image, "target"]))


def _dice(label: str, organ: int | None = None) -> IgniteMetricHandler:
    """Dice of all labels but the background, or of one."""
    both = from_engine([label, "target_label"])

    def output(batch: Any) -> Any:
        sides = both(batch)
        return sides if organ is None else tuple([masks[[0, organ]] for masks in side] for side in sides)

    return IgniteMetricHandler(DiceMetric(include_background=False, ignore_empty=True), output_transform=output)
