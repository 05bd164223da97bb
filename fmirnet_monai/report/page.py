"""One HTML file that shows whether a registration can be trusted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fmirnet_monai.spatial import Grid, resample
from fmirnet_monai.utils import GUIDED, versions, write_text

from .planes import Plane, choose_planes, choose_voxel, obliqueness, png_uri, resized
from .table import column

if TYPE_CHECKING:  # the registration package reads bundles and configurations, a page only its result
    from fmirnet_monai.registration.result import Registration

SIMILARITIES = ("ssim", "ncc", "nmi")
LOWER_IS_BETTER = ("hd", "hd95", "assd", "tre_mean", "tre_median", "tre_95")
NEITHER = ("inside",)  # more of it is no better
FOLDING_LIMIT = 0.5  # percent
RESIDUAL_LIMIT = 1.0  # voxels
FOLDED = (255, 0, 255)
GRID_LINES = 32


def write_report(registration: Registration, path: str | Path, metrics: bool = True, inverse: bool = True) -> Path:
    """Write a registration as one HTML file that needs nothing else, whole or not at all.

    It holds a verdict in numbers with warnings, metrics before and after, pictures (one plane of a 2-D image or of a
    volume of one slice, else three) with a blend slider, and timings, settings and versions.

    Args:
        registration: what a registrar gave.
        path: HTML to write.
        metrics: measure, and show it.
        inverse: invert the map, and show how well it went.

    Returns:
        ``path``.

    Raises:
        OSError: when it can't be written.
    """
    r = registration
    grid = Grid.of(r.fixed)
    determinant = r.determinant.cpu().numpy()
    distance = r.field.length().cpu().numpy()
    shift = distance if r.field is r.deformable else r.deformable.length().cpu().numpy()
    label = r.fixed_label if r.fixed_label is not None else r.warped_label
    voxel = choose_voxel(None if label is None else _array(label), shift, _array(r.fixed))
    slices = [_Slice(r, plane, determinant, distance) for plane in choose_planes(grid, voxel)]
    folded = int((determinant <= 0).sum())
    figures = r.metrics if metrics else {}
    residual = r.inversion.residual if inverse else 0.0
    warnings = [*find_warnings(figures, residual, 100 * folded / determinant.size), *r.notes]
    moving, fixed = _file_name(r.moving, "moving image"), _file_name(r.fixed, "fixed image")
    method = str(r.settings.get("method", "unknown method"))
    chip = f"{len(warnings)} warning{'s' * (len(warnings) > 1)}" if warnings else "no warning"
    body = [
        f"<h1>{escape(moving)} <span class=quiet>registered to</span> {escape(fixed)}</h1>",
        f"<p class=quiet>Method: {escape(method)}</p>",
        f'<p class="verdict {"bad" if warnings else "good"}"><b>{chip}</b> '
        f"{_verdict(r, figures, folded, residual if inverse else None)}</p>",
        "".join(f"<p class=warning>Warning: {escape(text)}</p>" for text in warnings),
        "<p class=quiet>Numbers alone prove no correspondence of anatomy: look at the pictures as well.</p>",
        HATCH,
        _compare(slices),
        *(["<h2>Metrics</h2>" + _metric_table(figures)] if metrics else []),
        "<h2>Pictures</h2>" + _pictures(slices, folded, determinant, distance),
        "<h2>Details</h2><div class=tables>" + _details(r, moving, fixed) + "</div>",
    ]
    style = STYLE.replace("FOLDED", "rgb({},{},{})".format(*FOLDED))
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(moving)} to {escape(fixed)}</title><style>{style}</style></head>\n<body>"
        + "\n".join(body)
        + f"<script>{SCRIPT}</script></body></html>\n"
    )
    write_text(path, page.encode("ascii", "xmlcharrefreplace").decode())  # whatever the encoding of this computer
    return Path(path)


def find_warnings(metrics: Mapping[str, float], inverse_residual: float, folded: float) -> list[str]:
    """What speaks against a registration, a sentence each.

    Args:
        metrics: as in ``Registration``.
        inverse_residual: in voxels.
        folded: folded voxels in percent, for where the metrics have no folding.
    """
    found = []
    for name, value in metrics.items():
        if name in SIMILARITIES or name.removeprefix(GUIDED).startswith(("dice", "tre_")):
            before = _before(metrics, name)
            if _change(name, before, value) < 0:
                found.append(f"{column(name)[0]} got worse, from {_number(name, before)} to {_number(name, value)}.")
    known = [metrics[n] for n in ("folding", "digital_folding") if math.isfinite(metrics.get(n, math.nan))]
    if (worst := max(known, default=folded)) > FOLDING_LIMIT:
        found.append(f"the field folds in up to {worst:.2f} % of the image, more than {FOLDING_LIMIT} %.")
    if not inverse_residual <= RESIDUAL_LIMIT:
        found.append(f"the inverse misses by up to {inverse_residual:.2f} voxels, more than {RESIDUAL_LIMIT:.0f}.")
    return found


# --- numbers -----------------------------------------------------------------------------------------------------


def _number(name: str, value: float) -> str:
    digits = column(name)[1]
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _change(name: str, before: float, after: float) -> float:
    """Improvement as far as the shown decimals tell, negative where it got worse, NaN where it can't be said."""
    if name in NEITHER:
        return math.nan
    digits = column(name)[1]
    change = round(after, digits) - round(before, digits)
    return -change if name.removeprefix(GUIDED) in LOWER_IS_BETTER else change


def _verdict(r: Registration, metrics: Mapping[str, float], folded: int, residual: float | None) -> str:
    parts = []
    paired = {n: v for n, v in metrics.items() if math.isfinite(v) and math.isfinite(_before(metrics, n))}
    similarity = next((n for n in SIMILARITIES if n in paired), None)
    for name in (similarity, "dice", f"{GUIDED}dice", "tre_mean", f"{GUIDED}tre_mean"):
        if name in paired:
            parts.append(f"{column(name)[0]} {_number(name, _before(metrics, name))} → {_number(name, paired[name])}")
    if not r.inside.all():
        parts.append(f"{100 * float((~r.inside).float().mean()):.1f} % not seen in the moving image")
    parts.append(f"folding {100 * folded / r.determinant.numel():.2f} %")
    if residual is not None:
        parts.append(f"inverse residual {residual:.2f} voxels")
    return " · ".join(escape(part) for part in parts)


def _before(metrics: Mapping[str, float], name: str) -> float:
    return metrics.get(f"before_{name.removeprefix(GUIDED)}", math.nan)


def _metric_table(metrics: Mapping[str, float]) -> str:
    rows = []
    for name, after in metrics.items():
        if name.startswith("before_"):
            continue
        before = _before(metrics, name)
        change = _change(name, before, after)
        mark = '<td class="worse">worse</td>' if change < 0 else f"<td>{'better' if change > 0 else ''}</td>"
        rows.append(
            f"<tr><th>{escape(column(name)[0])}<td>{_number(name, before)}<td>{_number(name, after)}</td>{mark}</tr>"
        )
    head = "<tr><th><th class=n>before<th class=n>after<th></tr>"
    return f"<table class=metrics>{head}{''.join(rows)}</table>" if rows else "<p>None were measured.</p>"


def _details(r: Registration, moving: str, fixed: str) -> str:
    images = {}
    for kind, name, grid in (("moving", moving, Grid.of(r.moving)), ("fixed", fixed, Grid.of(r.fixed))):
        size, spacing = (" × ".join(f"{n:.4g}" for n in numbers) for numbers in (grid.shape, grid.spacing))
        images[f"{kind}: {name}"] = f"{size} voxels of {spacing} mm"
    timings = {name: f"{seconds:.3f} s" for name, seconds in r.timings.items()}
    timings["total"] = f"{sum(r.timings.values()):.3f} s"
    settings, timings = ({name.replace("_", " "): v for name, v in row.items()} for row in (r.settings, timings))
    tables = {"Images": images, "Settings": settings, "Timings": timings, "Versions": versions()}
    return "".join(f"<div><h3>{title}</h3>{_table(rows)}</div>" for title, rows in tables.items())


def _table(rows: Mapping[str, Any]) -> str:
    cells = (f"<tr><th>{escape(str(k))}<td class=text>{escape(str(v))}</tr>" for k, v in rows.items())
    return f"<table>{''.join(cells)}</table>"


def _file_name(image: Tensor, otherwise: str) -> str:
    name = getattr(image, "meta", {}).get("filename_or_obj")
    return Path(str(name)).name if name else otherwise


# --- pictures ----------------------------------------------------------------------------------------------------


class _Slice:
    """What is shown of one plane, ``(rows, columns)`` each: images in [0, 1], labels, points, and the field."""

    def __init__(self, r: Registration, plane: Plane, determinant: NDArray, distance: NDArray) -> None:
        self.plane = plane
        low, high = _window(r.moving)
        unregistered, known = r.unregistered
        self.images = {
            "fixed": _scaled(plane.take(_array(r.fixed)), *_window(r.fixed)),
            "moving": _scaled(plane.take(_array(unregistered)), low, high),
            "warped": _scaled(plane.take(_array(r.warped)), low, high),
        }
        labels: dict[str, Tensor | None] = {"fixed": r.fixed_label, "warped": r.warped_label}
        if r.moving_label is not None:
            labels["moving"] = resample(r.moving_label, plane.slice_grid(), mode="nearest")[0]
        points = {"fixed": r.fixed_points, "moving": r.moving_points, "warped": r.warped_points}
        self.overlays = {
            name: "".join(_path(line, "Z") for line in plane.outlines(plane.take(_array(label))))
            for name, label in labels.items()
            if label is not None
        }
        unseen = {"moving": ~known, "warped": ~r.inside}
        self.unseen = {
            name: "".join(_path(line, "Z") for line in plane.outlines(plane.take(where.cpu().numpy())))
            for name, where in unseen.items()
        }
        self.dots = {name: plane.near(cloud) for name, cloud in points.items() if cloud is not None}
        self.determinant = plane.take(determinant)
        self.distance = plane.take(distance)
        ddf = r.deformable.ddf.cpu().numpy()
        start: tuple[NDArray, ...] = np.indices(determinant.shape, sparse=True)
        where = [plane.take(np.broadcast_to(s, d.shape)) + plane.take(d) for s, d in zip(start, ddf, strict=True)]
        self.lines = _grid_lines(plane.place(np.stack(where, axis=-1)))

    def picture(self, content: str, overlay: Iterable[str] = (), kind: str = "", hatched: str = "") -> str:
        """The SVG of a picture, in mm, with outlines and landmarks of the named images and the sides' letters; hatched
        where one of them, or the image ``hatched``, isn't seen.
        """
        width, height = self.plane.extent
        size = max(width, height)
        drawn = [f'<path class="unseen {n}" d="{self.unseen[n]}"/>' for n in (*overlay, hatched) if self.unseen.get(n)]
        for name in overlay:
            if self.overlays.get(name):
                drawn.append(f'<path class="outline {name}" d="{self.overlays[name]}"/>')
            drawn += [
                f'<circle class="dot {name}" cx="{x:.1f}" cy="{y:.1f}" r="{size / 110:.2f}"/>'
                for x, y in self.dots.get(name, ())
            ]
        letters = ""
        if content and self.plane.edges:
            rim, x, y = 0.035 * size, width / 2, height / 2
            at = ((rim, y), (width - rim, y), (x, rim), (x, height - rim))
            letters = "".join(
                f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size * 0.05:.1f}">{letter}</text>'
                for letter, (x, y) in zip(self.plane.edges, at, strict=True)
            )
        box = f'viewBox="0 0 {width:.3f} {height:.3f}"'
        return f'<svg class="{kind}" {box} role="img">{content}{"".join(drawn)}{letters}</svg>'

    def image(self, pixels: NDArray[np.uint8], name: str = "", kind: str = "smooth") -> str:
        """A PNG that fills the picture, to be used again as ``#PLANE-name``."""
        width, height = self.plane.extent
        mark = f'id="{self.plane.name}-{name}" ' if name else ""
        size = f'width="{width:.3f}" height="{height:.3f}" preserveAspectRatio="none"'
        return f'<image {mark}class="{kind}" {size} href="{png_uri(pixels)}"/>'

    def grey(self, name: str) -> str:
        """One of the images."""
        values = resized(self.images[name], self.plane, smooth=True)
        return self.image((255 * values).round().astype(np.uint8), name)

    def map(self, values: NDArray, colours: str, low: float, high: float, smooth: bool = False) -> NDArray[np.uint8]:
        """Colours ``(H, W, 3)`` of values between ``low`` and ``high``."""
        scaled = _scaled(resized(values, self.plane, smooth), low, high)
        return (255 * mpl.colormaps[colours](scaled)[..., :3]).round().astype(np.uint8)


def _compare(slices: list[_Slice]) -> str:
    views = []
    for s in slices:
        use = '<use href="#{}-{}"/>'
        layers = [s.picture(use.format(s.plane.name, "fixed"))]
        for name in ("warped", "moving"):
            layers.append(s.picture(use.format(s.plane.name, name), kind=f"over {name}"))
            layers.append(s.picture("", ("fixed", name), kind=f"lines {name}"))
        views.append(
            f"<figure><div class=view>{''.join(layers)}</div><figcaption>{s.plane.title}</figcaption></figure>"
        )
    lines = any(s.overlays or s.dots for s in slices)
    switch = "<label><input type=checkbox id=lines checked> outlines and landmarks</label>" if lines else ""
    return (
        "<h2>Compare</h2><div class=controls>"
        "<span><label><input type=radio name=other id=after checked> after (warped)</label> "
        "<label><input type=radio name=other id=before> before (moving)</label></span>"
        "<label>fixed <input type=range id=blend min=0 max=100 value=50> <span id=other>warped</span></label>"
        f"<label><input type=checkbox id=checker> checkerboard</label>{switch}</div>"
        f"<div class=views>{''.join(views)}</div>"
    )


def _pictures(slices: list[_Slice], folded: int, determinant: NDArray, distance: NDArray) -> str:
    logs = np.log2(np.maximum(determinant, 1e-6))
    factor = 2 ** float(np.clip(np.percentile(np.abs(logs), 99.5), 0.1, 2))
    farthest = max(float(distance.max()), 1e-3)
    pairs = [[s.images["fixed"] - s.images[name] for name in ("moving", "warped")] for s in slices]
    gap = max(0.01, float(np.percentile(np.abs(np.concatenate([d.ravel() for pair in pairs for d in pair])), 99.5)))
    scale_gap = _scale("RdBu", (f"−{gap:.2f}", "0", f"{gap:.2f}"))
    scale_volume = _scale("BrBG", (f"÷{factor:.2g}", "1", f"×{factor:.2g}"))
    folds = f"folded (≤ 0): {folded:,} of {determinant.size:,} voxels"
    parts = [_legend(slices)]
    for s, (before, after) in zip(slices, pairs, strict=True):
        here = s.determinant <= 0
        volume = s.map(np.log2(np.maximum(s.determinant, 1e-6)), "BrBG", -math.log2(factor), math.log2(factor))
        volume[resized(here, s.plane, smooth=False) > 0] = FOLDED
        panels = [
            (s.picture(s.grey("fixed"), ["fixed"]), "fixed"),
            (s.picture(s.grey("moving"), ["fixed", "moving"]), "moving, not registered"),
            (s.picture(s.grey("warped"), ["fixed", "warped"]), "warped (moving, registered)"),
            (
                s.picture(s.image(s.map(before, "RdBu", -gap, gap, True)), [], "", "moving"),
                "fixed − moving" + scale_gap,
            ),
            (s.picture(s.image(s.map(after, "RdBu", -gap, gap, True)), [], "", "warped"), "fixed − warped" + scale_gap),
            (s.picture(f'<path class="grid" d="{s.lines}"/>'), "warped grid: where its points are taken from"),
            (
                s.picture(s.image(volume, kind="blocks")),
                f"Jacobian determinant{scale_volume}<i class=folded></i> {folds}, {int(here.sum()):,} in this slice",
            ),
            (
                s.picture(s.image(s.map(s.distance, "viridis", 0, farthest), kind="blocks")),
                "displacement" + _scale("viridis", ("0", f"{farthest:.1f} mm")),
            ),
        ]
        figures = "".join(f"<figure>{svg}<figcaption>{text}</figcaption></figure>" for svg, text in panels)
        parts.append(f"<section><h3>{s.plane.title}</h3><div class=panels>{figures}</div></section>")
    return "".join(parts)


def _legend(slices: list[_Slice]) -> str:
    text = []
    if slices[0].plane.edges:
        text.append(
            "Radiological display: the patient's right is on the left of axial and coronal pictures, anterior on the "
            "left of sagittal ones."
        )
    if slices[0].plane.edges and (angle := obliqueness(slices[0].plane.grid)) > 1:
        text.append(f"The image is oblique: its planes lie up to {angle:.0f}° from those they are named after.")
    if any(s.overlays or s.dots for s in slices):
        text.append(
            "Outlines and landmarks: <b class=green>fixed</b>, <b class=red>moving or warped</b>; the landmarks are "
            "those within a few voxels."
        )
    if any(path for s in slices for path in s.unseen.values()):
        text.append("Hatched: beyond the moving image, where nothing is known and nothing is measured.")
    text.append(
        "Every image is shown between its own 0.5th and 99.5th percentile, and so are the differences. Grid and "
        "Jacobian determinant leave the affine stage out, the displacement holds it."
    )
    return f"<p class=quiet>{' '.join(text)}</p>"


def _scale(colours: str, ticks: tuple[str, ...]) -> str:
    stops = ",".join(mpl.colors.to_hex(c) for c in mpl.colormaps[colours](np.linspace(0, 1, 9)))
    marks = "".join(f"<span>{tick}</span>" for tick in ticks)
    return f'<div class=scale><i style="background:linear-gradient(90deg,{stops})"></i><div>{marks}</div></div>'


def _grid_lines(place: NDArray) -> str:
    """Path of about so many rows and columns of positions ``(rows, columns, 2)``."""
    step = max(1, max(place.shape[:2]) // GRID_LINES)
    fine = max(1, step // 3)  # points enough for a smooth line, not every voxel
    lines = [*place[::step, ::fine], *place.swapaxes(0, 1)[::step, ::fine]]
    return "".join(_path(line) for line in lines)


def _path(points: NDArray, end: str = "") -> str:
    return "M" + " ".join(f"{x:.1f},{y:.1f}" for x, y in points) + end


def _array(image: Tensor) -> NDArray:
    return np.asarray(image.detach().cpu()[0])


def _window(image: Tensor) -> tuple[float, float]:
    low, high = np.percentile(_array(image), (0.5, 99.5))
    return float(low), float(high)


def _scaled(values: NDArray, low: float, high: float) -> NDArray[np.float64]:
    """To [0, 1], clipped."""
    return np.clip((np.asarray(values, dtype=np.float64) - low) / max(high - low, 1e-12), 0, 1)


STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--quiet:#5b6570;--line:#d5dae0;--paper:#fff;--bad:#b3261e;--good:#1b6e3c;
 --bad-paper:#fdecea;--good-paper:#e8f5ec;--blend:.5}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e6e9ed;--quiet:#9aa5b1;--line:#3a424b;--paper:#15181c;
 --bad:#ff8a80;--good:#7ddc9f;--bad-paper:#3b1b19;--good-paper:#16301f}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1500px;margin:0 auto;
 padding:1rem 1.5rem;print-color-adjust:exact;-webkit-print-color-adjust:exact}
h1{font-size:1.45rem;margin:.2rem 0;overflow-wrap:anywhere}h2{margin:1.6rem 0 .5rem;font-size:1.2rem}
h3{margin:1rem 0 .4rem;font-size:1rem}.quiet{color:var(--quiet);font-weight:400}
.verdict{padding:.6rem .8rem;border-radius:6px;font-size:1.05rem}.verdict b{margin-right:.6rem}
.good{background:var(--good-paper)}.good b{color:var(--good)}.bad{background:var(--bad-paper)}.bad b{color:var(--bad)}
.warning{color:var(--bad);font-weight:600;margin:.2rem .8rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:.2rem .8rem .2rem 0;
 border-bottom:1px solid var(--line);text-align:right;vertical-align:top}th:first-child,.text{text-align:left}
th{font-weight:500}.text{overflow-wrap:anywhere;white-space:pre-wrap}.worse{color:var(--bad);font-weight:600}
.tables{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr));gap:0 2rem}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(17.5rem,45%),1fr));gap:1rem}
.views{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr));gap:1rem}
.views figure{max-width:36rem}
figure{margin:0;break-inside:avoid}figcaption{font-size:.85rem;color:var(--quiet);margin-top:.25rem}
svg{display:block;width:100%;max-height:75vh;background:#000;overflow:hidden}
svg:has(.grid){background:#fff}.view{position:relative}
.view svg+svg{position:absolute;inset:0;height:100%;background:none}
.over{opacity:var(--blend)}.lines{z-index:1}
.checker .over{opacity:1;--tiles:conic-gradient(#000 25%,#0000 0 50%,#000 0 75%,#0000 0) 0 0/5rem 5rem;
 -webkit-mask:var(--tiles);mask:var(--tiles)}
:root:not(.before) .view .moving,.before .view .warped,.bare .view .lines{display:none}
.blocks{image-rendering:pixelated}
.outline,.grid,.dot{fill:none;vector-effect:non-scaling-stroke;stroke-width:1.3}.grid{stroke:#222;stroke-width:.7}
.unseen{fill:url(#hatch);fill-rule:evenodd}.outline.fixed{stroke:#2f4}.outline{stroke:#f43}.dot{stroke:#000;stroke-width:.7;fill:#f43}.dot.fixed{fill:#2f4}
text{fill:#fff;stroke:#000;stroke-width:.18em;paint-order:stroke;text-anchor:middle;dominant-baseline:central;
 font-family:system-ui,sans-serif}
.green{color:#0a8a2a}.red{color:#e0301e}.folded{display:inline-block;width:.8em;height:.8em;background:FOLDED}
.scale i{display:block;height:.6rem;border-radius:2px}.scale div{display:flex;justify-content:space-between}
.controls{display:flex;flex-wrap:wrap;gap:.4rem 1.6rem;margin-bottom:.6rem;align-items:center}
#blend{vertical-align:middle;width:14rem}
@media print{.controls{display:none}body{padding:0;font-size:11px}svg{max-height:9cm}section{break-before:auto}}
"""
HATCH = (
    '<svg width=0 height=0 style="position:absolute" aria-hidden="true"><defs><pattern id="hatch" width="6" height="6" '
    'patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" fill="#333c"/>'
    '<rect width="2" height="6" fill="#fc0"/></pattern></defs></svg>'
)
SCRIPT = """
const get=id=>document.getElementById(id),root=document.documentElement;
function update(){
 root.style.setProperty("--blend",get("blend").value/100);
 root.classList.toggle("before",get("before").checked);
 root.classList.toggle("checker",get("checker").checked);
 root.classList.toggle("bare",get("lines")!==null&&!get("lines").checked);
 get("other").textContent=get("before").checked?"moving":"warped";
}
document.querySelectorAll("input").forEach(input=>input.addEventListener("input",update));
update();
"""
