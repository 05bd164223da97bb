"""Images that know where they lie."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .grid import Grid


class Image(Tensor):
    """An image that knows its place, for those who do without MONAI, whose import takes seconds.

    What is computed from it is a plain tensor.

    Args:
        values: ``(C, *spatial)``.
        affine: ``(D + 1, D + 1)`` from voxel to RAS+ mm.
        meta: what else is known of it, as of a MetaTensor, such as ``filename_or_obj``.
    """

    affine: Tensor
    meta: dict[str, Any]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __new__(cls, values: Tensor, affine: ArrayLike, meta: dict[str, Any] | None = None) -> Image:
        image = plain(values).as_subclass(cls)
        image.affine = torch.as_tensor(affine, dtype=torch.float64)
        image.meta = dict(meta or {})
        return image

    def __deepcopy__(self, memo: dict) -> Image:
        return type(self)(self.clone(), self.affine.clone(), self.meta)


def plain(image: Any, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
    """The values of an image of any class, as a tensor that knows nothing else."""
    return torch.as_tensor(image).as_subclass(Tensor).to(device=device, dtype=dtype)


def on_grid(values: Tensor, grid: Grid, like: Tensor | None = None) -> Any:
    """An image with the geometry of a grid: of the class of ``like`` where that knows its place, else an ``Image``.

    So whoever gives MONAI's MetaTensor gets one.
    """
    kind: Any = type(like) if hasattr(like, "affine") else Image
    return kind(plain(values), affine=torch.from_numpy(grid.affine.copy()))
