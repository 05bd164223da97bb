"""Registration by an affine map on the working grid: by itself, or as a start of the descent of a field."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from fmirnet_monai.spatial import compose, identity_grid, resize_field

from .adam import Adam
from .level import Level
from .optimise import FieldOptimizer, Similarity

FLAT = 0.05  # of the steepest slope: where the loss is flatter than this, Adam takes less than half a step
SMALLEST = 1e-30  # slope, below which there is none


class AffineOptimizer(FieldOptimizer):
    """Adam on an affine map about the image's centre, with which the initial field is composed.

    Args:
        similarity: see :py:class:`FieldOptimizer`.
        iterations: see :py:class:`FieldOptimizer`.
        learning_rate: of Adam, in half widths of the image.
        tolerance: see :py:class:`FieldOptimizer`.
    """

    def __init__(
        self,
        similarity: str | Similarity = "auto",
        iterations: Sequence[int] = (100, 50, 25),
        learning_rate: float = 0.01,
        tolerance: float = 1e-4,
    ) -> None:
        super().__init__(similarity, iterations, tolerance)
        self.learning_rate = learning_rate

    def optimise(self, starts: Sequence[Tensor], pyramid: Iterable[Level]) -> Tensor:
        """Item by item.

        Raises:
            ValueError: when there are guides.
        """
        levels = list(pyramid)
        if any(level.guides for level in levels):
            raise ValueError("guides: the affine optimizer takes none; take the dense one.")
        items = enumerate(starts[0].split(1))
        return torch.cat([self._item(start, [level.items([i]) for level in levels]) for i, start in items])

    @torch.enable_grad()
    def _item(self, initial: Tensor, pyramid: Iterable[Level]) -> Tensor:
        """Carry the change of an item's matrix and translation, ``(1, D, D + 1)``, from level to level."""
        dims = initial.shape[1]
        change = initial.new_zeros(1, dims, dims + 1)
        for level in pyramid:
            start = resize_field(initial, level.size)
            change = change.detach().requires_grad_()
            adam = Adam([change])
            losses: list[float] = []
            while len(losses) < level.iterations and not self.converged(losses):
                warped, seen = level.warped(compose(start, _displacement(change, start)))
                loss = self.losses(warped, level.fixed, seen)[0]
                gradients = torch.autograd.grad(loss, change)
                if not losses:  # Adam makes full steps of the slightest slope: what isn't seen would drift
                    adam.epsilon = max(FLAT * float(gradients[0].abs().max()), SMALLEST)
                adam.step(gradients, self.learning_rate)
                losses.append(float(loss.detach()))
        return compose(initial, _displacement(change.detach(), initial))


def _displacement(change: Tensor, like: Tensor) -> Tensor:
    """An affine map as a field of the size of ``like``, from the change of the identity's ``(B, D, D + 1)``."""
    half = torch.tensor([n / 2 for n in like.shape[2:]]).to(like).reshape(1, -1, *[1] * (like.dim() - 2))
    points = (identity_grid(like) + 0.5) / half - 1
    shift = change[:, :, -1].reshape(*change.shape[:2], *[1] * (like.dim() - 2))
    return (torch.einsum("bij,nj...->bi...", change[:, :, :-1], points) + shift) * half
