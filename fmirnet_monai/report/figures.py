"""Figures of registered pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from fmirnet_monai.data import LoadedPair
from fmirnet_monai.spatial import DisplacementField, Grid, resample
from fmirnet_monai.utils import replacing

Case = dict[str, Any]


def middle_slice(array: NDArray) -> NDArray:
    """``(X, Y[, Z])`` to the 2-D picture ``(row, column)`` of the slice with the middle index, x to the right."""
    return (array if array.ndim == 2 else array[..., array.shape[2] // 2]).T


def draw_pairs(cases: Sequence[Case], path: str | Path) -> Path:
    """Draw pairs, one a row: moving, fixed, warped, both differences, and the grid of the field.

    Contours of the labels, where there are any: the fixed image's own in green, the moving or warped one in red.

    Args:
        cases: each with ``moving``, ``fixed``, ``warped`` ``(*spatial)``, ``ddf`` ``(D, *spatial)`` in voxels,
            ``title``, and perhaps ``moving_label``, ``fixed_label``, ``warped_label``. Volumes are shown by their
            middle slice.
        path: PNG to write.

    Returns:
        ``path``.
    """
    columns = ("moving", "fixed", "warped", "fixed - moving", "fixed - warped", "warped grid")
    figure = Figure(figsize=(2.6 * len(columns), 2.75 * len(cases)), layout="constrained")
    axes = figure.subplots(len(cases), len(columns), squeeze=False)
    for row, case in enumerate(cases):
        images = {name: middle_slice(np.asarray(case[name], dtype=float)) for name in ("moving", "fixed", "warped")}
        labels = {name: middle_slice(np.asarray(case[f"{name}_label"])) for name in images if f"{name}_label" in case}
        low, high = images["fixed"].min(), images["fixed"].max()
        for column, name in enumerate(columns):
            axis = axes[row][column]
            axis.set_xticks([]), axis.set_yticks([])
            if row == 0:
                axis.set_title(name)
            if name in images:
                axis.imshow(images[name], cmap="gray", vmin=low, vmax=high)
                _contour(axis, labels.get("fixed"), "lime")
                if name != "fixed":
                    _contour(axis, labels.get(name), "red")
            elif name == "warped grid":
                _grid(axis, np.asarray(case["ddf"], dtype=float))
            else:
                other = images[name.removeprefix("fixed - ")]
                axis.imshow(images["fixed"] - other, cmap="RdBu", vmin=low - high, vmax=high - low)
        axes[row][0].set_ylabel(case["title"], fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110)
    plt.close(figure)
    return Path(path)


def draw_comparison(
    cases: Sequence[tuple[str, LoadedPair, Callable[[Tensor], Tensor], Mapping[str, DisplacementField]]],
    path: str | Path,
) -> Path:
    """Draw what several methods make of a few pairs, three rows a pair: warped image, difference, warped grid.

    Contours of the labels: the fixed image's own in green, the moving or warped one in red. Volumes are shown by the
    slice along the last axis through the middle of the fixed label.

    Args:
        cases: title, pair, map of intensities to [0, 1], and the field of each method that has one.
        path: PNG to write.

    Returns:
        ``path``.
    """
    columns = list(dict.fromkeys(name for *_, fields in cases for name in fields))
    figure = Figure(figsize=(1.9 * (len(columns) + 2), 5.7 * len(cases)), layout="constrained")
    axes = figure.subplots(3 * len(cases), len(columns) + 2, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([]), axis.set_yticks([]), axis.set_frame_on(False)
    for number, (title, pair, intensity, fields) in enumerate(cases):
        rows = axes[3 * number : 3 * number + 3]
        index = _slice_index(pair)
        grid = Grid.of(pair.fixed)

        def cut(tensor: Tensor, k: int | None = index) -> NDArray:
            values = np.asarray(tensor, dtype=float)
            return (values if k is None else values[..., k]).T

        fixed = cut(intensity(pair.fixed)[0])
        contour = None if pair.fixed_label is None else cut(pair.fixed_label[0])
        for column, (name, field) in enumerate(
            {"fixed": None, "moving": DisplacementField.identity(grid), **fields}.items()
        ):
            rows[0][column].set_title(fill(name, 18), fontsize=9)
            image = fixed if field is None else cut(intensity(resample(pair.moving, grid, field)[0])[0])
            rows[0][column].imshow(image, cmap="gray", vmin=0, vmax=1)
            _contour(rows[0][column], contour, "lime")
            if field is None:
                continue
            if pair.moving_label is not None:
                _contour(rows[0][column], cut(resample(pair.moving_label, grid, field, mode="nearest")[0][0]), "red")
            rows[1][column].imshow(fixed - image, cmap="RdBu", vmin=-1, vmax=1)
            if name != "moving":
                _grid(rows[2][column], np.stack([cut(component).T for component in field.ddf]))
        rows[0][0].set_ylabel(title, fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=100)
    return Path(path)


def draw_segmentations(cases: Sequence[Case], path: str | Path, columns: int = 5) -> Path:
    """Draw volumes, one a row, by slices spread over the labelled ones: the label in green, what was found in red.

    Args:
        cases: each with ``image``, ``label`` and ``found`` ``(X, Y, Z)``, and ``title``.
        path: PNG to write.
        columns: slices of each.

    Returns:
        ``path``.
    """
    figure = Figure(figsize=(2.6 * columns, 2.75 * len(cases)), layout="constrained")
    axes = figure.subplots(len(cases), columns, squeeze=False)
    for row, case in zip(axes, cases, strict=True):
        image = np.asarray(case["image"], dtype=float)
        low, high = np.percentile(image, (1, 99))
        labelled = np.flatnonzero((case["label"] > 0).any((0, 1)))
        first, last = (labelled[0], labelled[-1]) if len(labelled) else (0, image.shape[2] - 1)
        chosen = np.linspace(first, last, columns + 2).round().astype(int)[1:-1]
        for axis, index in zip(row, chosen, strict=True):
            axis.set_xticks([]), axis.set_yticks([])
            axis.imshow(image[..., index].T, cmap="gray", vmin=low, vmax=high)
            for key, colour in (("label", "lime"), ("found", "red")):
                part = case[key][..., index].T
                for value in np.unique(part[part > 0]):
                    _contour(axis, part == value, colour)
            axis.set_title(f"slice {index}", fontsize=8)
        row[0].set_ylabel(case["title"], fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110)
    return Path(path)


def _slice_index(pair: LoadedPair) -> int | None:
    """Of a volume the slice through the middle of the fixed label, or the middle one; None for a 2-D image."""
    if pair.fixed.dim() == 3:
        return None
    if pair.fixed_label is None or not pair.fixed_label.any():
        return pair.fixed.shape[-1] // 2
    where = torch.as_tensor(pair.fixed_label)[0].nonzero()[:, 2]
    return int(where.sort()[0][len(where) // 2])


def _contour(axis: Axes, label: NDArray | None, colour: str) -> None:
    if label is not None and label.min() < label.max():
        axis.contour(label > 0, levels=[0.5], colors=colour, linewidths=0.8)


def _grid(axis: Axes, ddf: NDArray, lines: int = 32) -> None:
    """Draw where the points of a regular grid are taken from, in the two axes of the picture."""
    flat = [middle_slice(component) for component in ddf[:2]]
    height, width = flat[0].shape
    y, x = np.mgrid[:height, :width].astype(float)
    x, y = x + flat[0], y + flat[1]
    step = max(1, max(height, width) // lines)
    for k in range(0, height, step):
        axis.plot(x[k], y[k], color="black", linewidth=0.4)
    for k in range(0, width, step):
        axis.plot(x[:, k], y[:, k], color="black", linewidth=0.4)
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)
    axis.set_aspect("equal")
