"""What every reader gives: one subject's volume with its geometry."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Volume:
    """An image volume, its label where there is one, and where both lie in space.

    Attributes:
        subject: name of the subject, unique within a data set.
        image: ``(X, Y, Z)`` intensities (Hounsfield units for CT), finite.
        affine: ``(4, 4)`` voxel index to RAS+ mm.
        label: ``(X, Y, Z)`` integer labels, 0 the background, or None.
    """

    subject: str
    image: NDArray[np.floating]
    affine: NDArray[np.floating]
    label: NDArray[np.integer] | None = None

    def __post_init__(self) -> None:
        if not np.isfinite(self.affine).all():
            raise ValueError(f"its place is no finite one: {np.asarray(self.affine).tolist()}")


class NoStructure(ValueError):  # noqa: N818 - what it says of a label, which some commands leave out
    """A label without the structure that it is to show."""


def check_finite(image: NDArray, source: str | Path, label: bool = False) -> None:
    """Raise ValueError naming ``source`` when an image, or a label, holds NaN or infinity."""
    if image.dtype.kind in "iu":
        return
    bad = image.size - sum(int(np.isfinite(part).sum()) for part in image)  # which need no second image
    if bad:
        remedy = "0 where nothing is labelled" if label else "-1000 HU, for CT, outside the field of view"
        raise ValueError(
            f"{source}: {bad} of {image.size} {'labels' if label else 'intensities'} are NaN or infinite; replace them "
            f"(by {remedy}) and try again."
        )


def natural_order(path: Path) -> list[str | int]:
    """Sort key that puts ``slice_9`` before ``slice_10``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def require_folder(path: str | Path, what: str) -> Path:
    """``path`` as a Path; FileNotFoundError that names it and ``what`` was looked for when it is no folder."""
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"{what}: no such folder: {folder}")
    return folder


def keep_label(label: NDArray[np.integer], label_id: int | None, source: str | Path) -> NDArray[np.uint8]:
    """Labels as uint8; with a ``label_id`` only that one, as 1. NoStructure naming ``source`` when it is not there."""
    if label_id is None:
        if label.min() < 0 or label.max() > 255:
            raise ValueError(
                f"{source}: labels must lie in 0..255, found {label.min()} to {label.max()}; choose one with label_id "
                "or renumber them."
            )
        return label.astype(np.uint8)
    if not (label == label_id).any():
        raise NoStructure(f"{source}: has no voxel of label_id {label_id}; it holds {np.unique(label).tolist()}.")
    return (label == label_id).astype(np.uint8)
