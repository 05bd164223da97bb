"""From labels, landmarks, channels and a feature extractor to the guides of one pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fmirnet_monai.spatial import Affine, Grid, Map, extend, resample, resize
from fmirnet_monai.spatial.image import plain
from fmirnet_monai.utils import reason

from .guides import ChannelGuide, LabelGuide, PointGuide
from .result import map_points

Extractor = Callable[[Tensor], Tensor]
NEIGHBOURS = 4  # landmarks that a landmark is compared with
FEWEST = 4  # landmarks, below which none can be told to be wrong
OFF = 3.0  # times the median disagreement: further off, a landmark is told and hardly pulls
CLOSE = 2.0  # voxels of the working grid that any landmark may disagree by


@dataclass(frozen=True)
class Guidance:
    """How strongly what belongs to the images guides their registration, where they themselves pull with 1.

    Attributes:
        labels: soft Dice of the labels that both label maps hold; 0, as for the others, leaves them out.
        points: distance of the landmarks.
        channels: similarity of the further channels.
        features: similarity of the features.
        extractor: gives the features ``(1, F, *size)`` of an image ``(1, 1, *spatial)`` in [0, 1]; a smaller size is
            brought to the image's. See :py:func:`load_extractor`.
        structures: overlap of the structures that a bundle's network finds in both images.

    Raises:
        ValueError: for a negative weight.
    """

    labels: float = 0.0
    points: float = 0.0
    channels: float = 1.0
    features: float = 1.0
    extractor: Extractor | None = None
    structures: float = 1.0

    def __post_init__(self) -> None:
        for name in ("labels", "points", "channels", "features", "structures"):
            weight = getattr(self, name)
            if not 0 <= weight < float("inf"):
                raise ValueError(f"the weight of {name} as a guide must be a number of at least 0, got {weight}.")

    def of(self, hints: Hints) -> dict[str, float]:
        """The weights of what guides a pair, by name."""
        there = {
            "labels": True,
            "points": True,
            "channels": any(hints.channels),
            "features": self.extractor is not None,
        }
        return {name: getattr(self, name) for name, given in there.items() if given and getattr(self, name)}

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of what guides, which say how closely it was followed and nothing of other structures."""
        of_labels, of_points = ("dice", "hd95", "assd"), ("tre_mean", "tre_median", "tre_95")
        return (*(of_labels if self.labels else ()), *(of_points if self.points else ()))


@dataclass(frozen=True, eq=False)
class Hints:
    """What belongs to a pair of images and may guide their registration, as :py:meth:`PairRegistrar.register` has it.

    Attributes:
        labels: of the moving and the fixed image.
        points: of the moving and the fixed image, ``(N, D)`` in RAS+ mm.
        channels: of the moving and the fixed image.
    """

    labels: tuple[Tensor | None, Tensor | None] = (None, None)
    points: tuple[NDArray[np.float64] | None, NDArray[np.float64] | None] = (None, None)
    channels: tuple[Sequence[Tensor], Sequence[Tensor]] = ((), ())


class FileExtractor(nn.Module):
    """A feature extractor that was read from a file, and is read again in another process."""

    def __init__(self, path: str | Path, program: nn.Module) -> None:
        super().__init__()
        self.path = Path(path).absolute()
        self.program = program

    def forward(self, image: Tensor) -> Tensor:
        """``(1, F, *size)`` of an image ``(1, 1, *spatial)``."""
        return self.program(image)

    def __reduce__(self) -> tuple[Any, ...]:
        return load_extractor, (self.path,)  # neither TorchScript nor an exported program pickles


def load_extractor(path: str | Path, device: torch.device | None = None) -> FileExtractor:
    """A feature extractor from a file of TorchScript or of ``torch.export``.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is none.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"features: no such file: {path}; give a TorchScript or exported program.")
    try:
        return FileExtractor(path, torch.jit.load(str(path), map_location=device or "cpu").eval())
    except (RuntimeError, ValueError):
        pass
    try:
        return FileExtractor(path, torch.export.load(str(path)).module().to(device or "cpu"))
    except Exception as error:  # zip, pickle and schema errors of many kinds
        raise ValueError(
            f"features: {path} is neither TorchScript (torch.jit.save) nor an exported program (torch.export.save): "
            f"{reason(error)}."
        ) from error


def label_guide(hints: Hints, grid: Grid, affine: Map, weight: float) -> tuple[LabelGuide, list[str]]:
    """The labels that both maps hold on the grid, and what is to be told of the others.

    Raises:
        ValueError: when one of the maps isn't given, or they have no label in common.
    """
    moving, fixed = hints.labels
    if moving is None or fixed is None:
        raise ValueError("guide: labels need both moving_label and fixed_label.")
    held = [{int(i) for i in label.unique() if i != 0} for label in (moving, fixed)]
    common = sorted(held[0] & held[1])
    if not common:
        names = " and ".join(_listed(sorted(ids)) for ids in held)
        raise ValueError(f"guide: moving_label and fixed_label have no label in common, they hold {names}.")
    sides = [
        torch.cat([_share(label, i, grid, through) for i in common])[None]
        for label, through in ((moving, affine), (fixed, None))
    ]
    told = [
        f"guide: only {name} holds {_listed(sorted(lone))}; what one side lacks guides nothing."
        for name, lone in (("moving_label", held[0] - held[1]), ("fixed_label", held[1] - held[0]))
        if lone
    ]
    return LabelGuide(moving=sides[0], fixed=sides[1], weight=weight), told


def _share(label: Tensor, number: int, grid: Grid, through: Map | None) -> Tensor:
    """How much of each voxel of a grid has a label, ``(1, *grid.shape)``."""
    mask = (label == number).float()
    return resample(mask, grid, through, grid=Grid.of(label), fill=0, antialias=True)[0]


def point_guide(hints: Hints, grid: Grid, affine: Affine, weight: float, device: torch.device) -> PointGuide:
    """The landmarks on the grid, trusted as far as their motion agrees with their neighbours'.

    Raises:
        ValueError: when one image's aren't given.
    """
    moving, fixed = hints.points
    if moving is None or fixed is None:
        raise ValueError("guide: points need both moving_points and fixed_points.")
    if len(moving) != len(fixed):
        raise ValueError(f"moving_points and fixed_points must hold as many, got {len(moving)} and {len(fixed)}.")
    brought = affine.inverse()(torch.from_numpy(np.array(moving)))[0].numpy()
    trust = trusted(fixed, brought - fixed, CLOSE * float(grid.spacing.min()))
    placed = [grid.to_voxel(brought), grid.to_voxel(fixed), trust]
    parts = [[torch.from_numpy(part).to(device, torch.float32)] for part in placed]
    return PointGuide(moving=parts[0], fixed=parts[1], trust=parts[2], size=grid.shape, weight=weight)


def trusted(places: NDArray[np.float64], motion: NDArray[np.float64], close: float) -> NDArray[np.float64]:
    """How far the motion of each landmark is to be trusted, in [0, 1].

    It is compared with the median, by axis, of the motion of the four nearest landmarks, which one wrong one among them
    does not change. Half the trust is lost at three times the median disagreement (Geman and McClure's weight). Of
    three or less none can be told to be the wrong one.

    Args:
        places: ``(N, D)`` in mm.
        motion: ``(N, D)`` in mm.
        close: disagreement in mm that is none.
    """
    if len(places) < FEWEST:
        return np.ones(len(places))
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :NEIGHBOURS]
    apart = np.linalg.norm(motion - np.median(motion[nearest], axis=1), axis=1)
    limit = max(OFF * float(np.median(apart)), close)
    return 1 / (1 + (2**0.5 - 1) * (apart / limit) ** 2) ** 2


def missed(hints: Hints, grid: Grid, found: Map) -> list[str]:
    """Which landmarks a map does not bring together, a sentence each."""
    moving, fixed = hints.points
    if moving is None or fixed is None:
        return []
    left = np.linalg.norm(map_points(found, fixed) - moving, axis=1)
    middle = float(np.median(left))
    return [
        f"landmark {i + 1} still lies {left[i]:.1f} mm off, where half of them lie within {middle:.1f} mm: neither the "
        "images nor the others speak for it; check it in both images."
        for i in np.flatnonzero(left > max(OFF * middle, CLOSE * float(grid.spacing.max())))
    ]


def channel_guide(
    hints: Hints,
    grid: Grid,
    affine: Map,
    weight: float,
    scale: Callable[[Tensor, Tensor], Tensor],
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> ChannelGuide:
    """The further channels on the grid.

    Args:
        hints: with channels.
        grid: to resample them onto.
        affine: from the fixed image's space to the moving image's.
        weight: of the guide.
        scale: brings the values ``(1, *spatial)`` of one, known where the second argument says, to [0, 1].
        loss: see :py:class:`ChannelGuide`.

    Raises:
        ValueError: when the images have not as many.
    """
    counts = [len(side) for side in hints.channels]
    if counts[0] != counts[1]:
        raise ValueError(f"moving_channels and fixed_channels must be as many, got {counts[0]} and {counts[1]}.")
    sides = []
    for channels, through in zip(hints.channels, (affine, None), strict=True):
        found = []
        for channel in channels:
            values, seen = resample(plain(channel, torch.float32), grid, through, grid=Grid.of(channel), antialias=True)
            found.append(extend(scale(values, seen), seen))
        sides.append(torch.cat(found)[None])
    return ChannelGuide(moving=sides[0], fixed=sides[1], weight=weight, loss=loss)


def feature_guide(extractor: Extractor, moving: Tensor, fixed: Tensor, weight: float) -> ChannelGuide:
    """Features of two images ``(1, 1, *spatial)``, each channel with a deviation of 1 over both.

    Raises:
        ValueError: when the extractor fails or gives something else than a tensor ``(1, F, *size)``.
    """
    sides = []
    for image in (moving, fixed):
        try:
            with torch.no_grad():
                features = extractor(image)
        except Exception as error:  # whatever a user's program raises
            raise ValueError(
                f"features: the extractor fails on an image {list(image.shape)}: {reason(error)}."
            ) from error
        if not isinstance(features, Tensor) or features.dim() != image.dim() or features.shape[0] != 1:
            found = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"features: the extractor must give (1, F, *size) for {list(image.shape)}, got {found}.")
        sides.append(resize(features.float(), image.shape[2:]))
    both = torch.cat(sides).movedim(1, 0).flatten(1)
    deviation = both.std(1).clamp(min=1e-6).reshape(1, -1, *[1] * (moving.dim() - 2))
    return ChannelGuide(moving=sides[0] / deviation, fixed=sides[1] / deviation, weight=weight)


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids)) or "none"
