"""One HTML file that shows whether a registration can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fmirnet_monai.spatial import Grid
from fmirnet_monai.utils import GUIDED, versions

from .display import obliqueness
from .render import write_page
from .table import column
from .viewer import Viewer, place_known

if TYPE_CHECKING:
    from fmirnet_monai.registration.result import Registration

SIMILARITIES = ("ssim", "ncc", "nmi")
LOWER_IS_BETTER = ("hd", "hd95", "assd", "tre_mean", "tre_median", "tre_95")
NEITHER = ("inside",)  # more of it is no better
HEADS = {  # of metrics that no table of methods has
    "jacobian_min": "Jacobian, smallest",
    "jacobian_p01": "Jacobian, 1st percentile",
    "jacobian_p99": "Jacobian, 99th percentile",
    "lncc": "Local correlation, squared",
    "lncc_10": "Local correlation, 10th percentile",
    "residual_mean": "Intensities apart, mean",
    "residual_99": "Intensities apart, 99th percentile",
    "inverse_consistency": "Registered back, off by (mm)",
    "inverse_misses": "Registered back, misses (%)",
}
SCRIPTS = ("volume.js", "outline.js", "paint.js", "marks.js", "viewer.js", "main.js")


def write_report(
    registration: Registration,
    path: str | Path,
    metrics: bool = True,
    inverse: bool = True,
    names: Mapping[int, str] | None = None,
) -> Path:
    """Write a registration as one HTML file that needs nothing else, whole or not at all.

    It holds the verdict with its reasons, the images to scroll through with a blend slider, metrics before and after,
    maps of differences and of the field, and timings, settings and versions. It takes less than 4 MB: an image has at
    most 1024 pixels a side, a volume 256, and larger ones are compressed with loss.

    Args:
        registration: what a registrar gave.
        path: HTML to write.
        metrics: measure, and show it and the verdict that follows.
        inverse: invert the map, and show how well it went.
        names: of labels, by number; a label without one is shown by its number.

    Returns:
        ``path``.

    Raises:
        OSError: when it can't be written.
    """
    r = registration
    viewer = Viewer(r, names)
    figures = r.metrics if metrics else {}
    moving, fixed = file_name(r.moving, "moving image"), file_name(r.fixed, "fixed image")
    return write_page(
        path,
        "page.html",
        ("common.css", "page.css"),
        SCRIPTS,
        moving=moving,
        fixed=fixed,
        method=str(r.settings.get("method", "unknown method")),
        thumbnail=viewer.thumbnail(),
        verdict=r.verdict if metrics else None,
        notes=r.notes,
        headline=_headline(r, figures, viewer),
        rows=_metric_rows(figures, viewer.mm) if metrics else None,
        planes=viewer.planes,
        panels=_panels(viewer),
        labels=viewer.label_names,
        points=sorted(viewer.points),
        legend=_legend(viewer),
        details=_details(r, moving, fixed, inverse),
        data=viewer.data(),
    )


# --- numbers -----------------------------------------------------------------------------------------------------


def number(name: str, value: float) -> str:
    """A metric's value as it is shown, a dash where there is none."""
    return _or_dash(value, column(name)[1])


def _or_dash(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _change(name: str, before: float, after: float) -> float:
    """Improvement as far as the shown decimals tell, negative where it got worse, NaN where it can't be said."""
    if name in NEITHER:
        return math.nan
    digits = column(name)[1]
    change = round(after, digits) - round(before, digits)
    return -change if name.removeprefix(GUIDED) in LOWER_IS_BETTER else change


def _head(name: str, mm: bool) -> str:
    """Head of a metric's column, in pixels where mm aren't known."""
    head = HEADS.get(name, column(name)[0])
    return head if mm else head.replace("mm", "pixels")


def _headline(r: Registration, metrics: Mapping[str, float], viewer: Viewer) -> list[str]:
    parts = []
    paired = {n: v for n, v in metrics.items() if math.isfinite(v) and math.isfinite(before(metrics, n))}
    similarity = next((n for n in SIMILARITIES if n in paired), None)
    for name in (similarity, "dice", f"{GUIDED}dice", "tre_mean", f"{GUIDED}tre_mean"):
        if name in paired:
            parts.append(
                f"{_head(name, viewer.mm)} {number(name, before(metrics, name))} → {number(name, paired[name])}"
            )
    if not r.inside.all():
        parts.append(f"{100 * float((~r.inside).float().mean()):.1f} % not seen in the moving image")
    parts.append(f"folding {100 * viewer.folded / r.determinant.numel():.2f} %")
    return parts


def before(metrics: Mapping[str, float], name: str) -> float:
    """A metric's value before registration, NaN where there is none."""
    return metrics.get(f"before_{name.removeprefix(GUIDED)}", math.nan)


def _metric_rows(metrics: Mapping[str, float], mm: bool) -> list[dict[str, str]]:
    rows = []
    for name, after in metrics.items():
        if name.startswith("before_"):
            continue
        change = _change(name, before(metrics, name), after)
        rows.append(
            {
                "name": _head(name, mm),
                "before": number(name, before(metrics, name)),
                "after": number(name, after),
                "change": "worse" if change < 0 else "better" if change > 0 else "",
            }
        )
    return rows


def _details(r: Registration, moving: str, fixed: str, inverse: bool) -> dict[str, dict[str, Any]]:
    images = {}
    for kind, name, image in (("moving", moving, r.moving), ("fixed", fixed, r.fixed)):
        grid = Grid.of(image)
        size, spacing = (" × ".join(f"{n:.4g}" for n in numbers) for numbers in (grid.shape, grid.spacing))
        mm, _ = place_known(image)
        images[f"{kind}: {name}"] = f"{size} voxels of {spacing} mm" if mm else f"{size} pixels"
    tables: dict[str, dict[str, Any]] = {"Images": images}
    if inverse:
        tables["Inverse map"] = {
            "misses by at most": f"{_or_dash(r.inversion.residual)} voxels, where its solver stopped",
            "not reached": f"{r.inversion.missing:,} voxels, which no point is mapped to",
        }
    timings = {name: f"{seconds:.3f} s" for name, seconds in r.timings.items()}
    timings["total"] = f"{sum(r.timings.values()):.3f} s"
    settings, timings = ({name.replace("_", " "): v for name, v in row.items()} for row in (r.settings, timings))
    return tables | {"Settings": settings, "Timings": timings, "Versions": versions()}


def file_name(image: Tensor, otherwise: str) -> str:
    """Name of the file that an image was read from."""
    name = getattr(image, "meta", {}).get("filename_or_obj")
    return Path(str(name)).name if name else otherwise


# --- pictures ----------------------------------------------------------------------------------------------------


def _panels(viewer: Viewer) -> list[dict[str, Any]]:
    """What is shown of each plane beside the comparison: how it is painted, and what is drawn over it."""
    gap = ("RdBu", f"−{viewer.gap:.2f}", "0", f"{viewer.gap:.2f}")
    factor = viewer.volume_change
    panels = [
        _panel("grey", "fixed", "fixed", ["fixed"]),
        _panel("grey", "moving", "moving, not registered", ["fixed", "moving"]),
        _panel("grey", "warped", "warped (moving, registered)", ["fixed", "warped"]),
        _panel("difference", "moving", "fixed − moving", scale=gap),
        _panel("difference", "warped", "fixed − warped", scale=gap),
        _panel("grid", "", "warped grid: where its points are taken from"),
        _panel(
            "determinant",
            "",
            "Jacobian determinant",
            scale=("BrBG", f"÷{factor:.2g}", "1", f"×{factor:.2g}"),
            note=f"folded (≤ 0): {viewer.folded:,} of {viewer.determinant.size:,} voxels",
        ),
    ]
    unit = "mm" if viewer.mm else "pixels"
    for name in viewer.lengths:
        scale = ("viridis", "0", f"{viewer.farthest(name):.1f} {unit}")
        panels.append(_panel("length", name, name, scale=scale))
    return panels


def _panel(
    kind: str, source: str, title: str, overlay: list[str] | None = None, scale: tuple[str, ...] = (), note: str = ""
) -> dict[str, Any]:
    return {"kind": kind, "source": source, "title": title, "overlay": overlay or [], "scale": scale, "note": note}


def _legend(viewer: Viewer) -> list[str]:
    text = []
    display, sides = viewer.display, viewer.planes[0].edges
    if sides:
        text.append(
            "The letters come from the fixed file's header; nobody has checked them against the patient. Radiological "
            "display: the patient's right is on the left of axial and coronal pictures, anterior on the left of "
            "sagittal ones."
        )
    if sides and (angle := obliqueness(display.grid)) > 1:
        text.append(f"The image is oblique: its planes lie up to {angle:.0f}° from those they are named after.")
    if not sides:
        text.append("The fixed image's file doesn't say which side of the patient is where.")
    if not viewer.mm:
        text.append("The size of a pixel is not known: distances are in pixels, in the metrics too.")
    if viewer.unseen:
        text.append("Hatched: beyond the moving image, where nothing is known and nothing is measured.")
    if viewer.images["fixed"].shape != display.shape:
        text.append("The images are larger than what is shown of them; metrics and files hold all of them.")
    text.append(
        "Window and level begin at the 0.5th and 99.5th percentile of each image; differences are those of intensities "
        "between them. "
        + ("Pictures have 8 bits" + (", compressed with loss. " if viewer.lossy else ". "))
        + "Grid and Jacobian determinant leave the affine stage out, the "
        "displacement holds it."
    )
    return text
