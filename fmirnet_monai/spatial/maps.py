"""Maps of space: what a registration finds, and what transforms of other tools are read as.

A map takes points of the fixed image's space to the moving image's, both in RAS+ mm, and says where it is valid. Maps
are joined without being made dense; an image is resampled through the whole chain once
(:py:func:`fmirnet_monai.spatial.resample`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .grid import Grid, transform

Mapped = tuple[Tensor, Tensor]  # positions (..., D) and where they are valid (...)


class Map(ABC):
    """``x -> map(x)`` of points in RAS+ mm."""

    @property
    @abstractmethod
    def dims(self) -> int:
        """Number of spatial axes, 2 or 3."""

    @abstractmethod
    def __call__(self, points: Tensor) -> Mapped:
        """Take points along.

        Args:
            points: ``(..., D)`` in RAS+ mm; type and device are those of the computation.

        Returns:
            their images ``(..., D)``, and ``inside (...)``: where the map is known. Elsewhere it goes on somehow.
        """

    @abstractmethod
    def inverse(self) -> Map:
        """The map back."""

    def at(self, grid: Grid, slab: slice = slice(None), like: Tensor | None = None) -> Mapped:
        """The same of the voxels of a grid, or of a slab of it along its first axis; type and device of ``like``."""
        return self(grid.to_world(grid.indices(slab, like)))

    def then(self, outer: Map) -> Map:
        """``x -> outer(self(x))``; nothing is sampled."""
        return chain((self, outer))

    def to(self, device: torch.device) -> Map:
        """The same map for points on a device."""
        return self

    def parts(self) -> tuple[Map, ...]:
        """The maps that it is made of, the first applied first."""
        return (self,)

    @property
    def device(self) -> torch.device:
        """Where its numbers lie."""
        return torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Affine(Map):
    """An affine map, valid everywhere.

    Attributes:
        matrix: ``(D + 1, D + 1)`` in RAS+ mm.
    """

    matrix: NDArray[Any]

    def __post_init__(self) -> None:
        matrix = np.asarray(self.matrix, dtype=np.float64)
        object.__setattr__(self, "matrix", matrix)
        if matrix.shape not in ((3, 3), (4, 4)) or not np.isfinite(matrix).all():
            raise ValueError(f"matrix must be finite and 3 x 3 or 4 x 4, got\n{matrix}")

    @classmethod
    def identity(cls, dims: int) -> Affine:
        """The map that moves nothing."""
        return cls(np.eye(dims + 1))

    @property
    def dims(self) -> int:
        return len(self.matrix) - 1

    def __call__(self, points: Tensor) -> Mapped:
        return transform(self.matrix, points), torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)

    @property
    def still(self) -> bool:
        """Whether it is the identity."""
        return np.array_equal(self.matrix, np.eye(len(self.matrix)))

    def inverse(self) -> Affine:
        """The inverse matrix; ValueError where there is none."""
        try:
            return Affine(np.linalg.inv(self.matrix))
        except np.linalg.LinAlgError as error:
            raise ValueError(f"the affine map has no inverse:\n{self.matrix}") from error


@dataclass(frozen=True, eq=False)
class Chain(Map):
    """Maps one after another; valid where each of them is.

    Attributes:
        links: at least one, of one number of axes, the first applied first.
    """

    links: tuple[Map, ...]

    def __post_init__(self) -> None:
        if not self.links or len({link.dims for link in self.links}) > 1:
            raise ValueError(f"a chain has maps of one number of axes, got {[link.dims for link in self.links]}.")

    @property
    def dims(self) -> int:
        return self.links[0].dims

    def __call__(self, points: Tensor) -> Mapped:
        return self._follow(self.links[0](points))

    def at(self, grid: Grid, slab: slice = slice(None), like: Tensor | None = None) -> Mapped:
        return self._follow(self.links[0].at(grid, slab, like))

    def _follow(self, start: Mapped) -> Mapped:
        points, inside = start
        for link in self.links[1:]:
            points, known = link(points)
            inside = inside & known
        return points, inside

    def inverse(self) -> Map:
        """The inverses in reverse order."""
        return chain(link.inverse() for link in self.links[::-1])

    def to(self, device: torch.device) -> Map:
        return Chain(tuple(link.to(device) for link in self.links))

    def parts(self) -> tuple[Map, ...]:
        return self.links

    @property
    def device(self) -> torch.device:
        return next((link.device for link in self.links if link.device.type != "cpu"), torch.device("cpu"))


def chain(maps: Iterable[Map]) -> Map:
    """Maps one after another, the first applied first; neighbouring affine ones become one, identities none.

    Raises:
        ValueError: when there is none, or their numbers of axes differ.
    """
    links: list[Map] = []
    for link in (part for item in maps for part in item.parts()):
        if links and isinstance(link, Affine) and isinstance(last := links[-1], Affine) and link.dims == last.dims:
            links[-1] = Affine(link.matrix @ last.matrix)
        else:
            links.append(link)
    Chain(tuple(links))  # which checks them
    moving = [link for link in links if not (isinstance(link, Affine) and link.still)] or links[:1]
    return moving[0] if len(moving) == 1 else Chain(tuple(moving))
