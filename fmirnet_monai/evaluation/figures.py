"""Figures of registered pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

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
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)
    plt.close(figure)
    return target


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
