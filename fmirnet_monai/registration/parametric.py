"""Registration by Adam on the parameters of a map: a control grid of velocities, or an affine map."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from fmirnet_monai.spatial import compose, identity_grid, integrate, resize_field, smooth

from .optimise import FieldOptimizer, Level, Similarity

FLAT = 0.05  # of the steepest slope: where the loss is flatter than this, Adam takes less than half a step
SMALLEST = 1e-30  # slope, below which there is none


class ParametricOptimizer(FieldOptimizer):
    """Adam on the parameters of a map with which the initial field is composed.

    Args:
        similarity: see :py:class:`FieldOptimizer`.
        iterations: see :py:class:`FieldOptimizer`.
        learning_rate: of Adam.
        tolerance: see :py:class:`FieldOptimizer`.
    """

    def __init__(
        self, similarity: str | Similarity, iterations: Sequence[int], learning_rate: float, tolerance: float = 1e-3
    ) -> None:
        super().__init__(similarity, iterations, tolerance)
        self.learning_rate = learning_rate

    @abstractmethod
    def parameters(self, previous: Tensor | None, like: Tensor) -> Tensor:
        """Parameters for fields of the size of ``like``: those of the level before, or of the identity."""

    @abstractmethod
    def displacement(self, parameters: Tensor, like: Tensor) -> Tensor:
        """The map that the parameters mean, as a field of the size of ``like``."""

    def optimise(self, initial: Tensor, pyramid: Iterable[Level]) -> Tensor:
        """Item by item."""
        levels = list(pyramid)
        return torch.cat(
            [self._item(start, [level.items([i]) for level in levels]) for i, start in enumerate(initial.split(1))]
        )

    @torch.enable_grad()
    def _item(self, initial: Tensor, pyramid: Iterable[Level]) -> Tensor:
        """Carry the parameters of an item from level to level."""
        parameters = None
        for level in pyramid:
            start = resize_field(initial, level.size)
            parameters = self.parameters(parameters, start).detach().requires_grad_()
            adam = torch.optim.Adam([parameters], lr=self.learning_rate)
            losses: list[float] = []
            while len(losses) < level.iterations and not self.converged(losses):
                warped, seen = level.warped(compose(start, self.displacement(parameters, start)))
                loss = self.losses(warped, level.fixed, seen)[0]
                (parameters.grad,) = torch.autograd.grad(loss, parameters)
                if not losses:  # Adam makes full steps of the slightest slope: what isn't seen would drift
                    adam.param_groups[0]["eps"] = max(FLAT * float(parameters.grad.abs().max()), SMALLEST)
                adam.step()
                losses.append(float(loss.detach()))
        parameters = self.parameters(parameters, initial).detach()
        return compose(initial, self.displacement(parameters, initial))


class ControlGridOptimizer(ParametricOptimizer):
    """A stationary velocity field on a coarse control grid, integrated: smooth, invertible, with few parameters.

    Args:
        similarity: see :py:class:`FieldOptimizer`.
        iterations: see :py:class:`FieldOptimizer`.
        spacing: of the control points, in voxels of the level.
        learning_rate: of Adam, in control points' spacings.
        tolerance: see :py:class:`FieldOptimizer`.
    """

    def __init__(
        self,
        similarity: str | Similarity = "auto",
        iterations: Sequence[int] = (60, 60, 60),
        spacing: int = 6,
        learning_rate: float = 0.05,
        tolerance: float = 1e-3,
    ) -> None:
        super().__init__(similarity, iterations, learning_rate, tolerance)
        if spacing < 1:
            raise ValueError(f"spacing must be at least 1 voxel, got {spacing}.")
        self.spacing = spacing

    def parameters(self, previous: Tensor | None, like: Tensor) -> Tensor:
        """Velocity ``(B, D, *grid)`` at each control point."""
        size = [max(2, -(-n // self.spacing)) for n in like.shape[2:]]
        if previous is None:
            return like.new_zeros(*like.shape[:2], *size)
        return resize_field(previous, size)

    def displacement(self, parameters: Tensor, like: Tensor) -> Tensor:
        """Integrate the velocity, interpolated and smoothed to about a quadratic B-spline."""
        return integrate(smooth(resize_field(parameters, like.shape[2:]), self.spacing / 2), 5)


class AffineOptimizer(ParametricOptimizer):
    """An affine map about the image's centre.

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
        super().__init__(similarity, iterations, learning_rate, tolerance)

    def parameters(self, previous: Tensor | None, like: Tensor) -> Tensor:
        """Change of the matrix and translation ``(B, D, D + 1)``."""
        return like.new_zeros(like.shape[0], like.shape[1], like.shape[1] + 1) if previous is None else previous

    def displacement(self, parameters: Tensor, like: Tensor) -> Tensor:
        """Displacement of the affine map."""
        half = torch.tensor([n / 2 for n in like.shape[2:]]).to(like).reshape(1, -1, *[1] * (like.dim() - 2))
        points = (identity_grid(like) + 0.5) / half - 1
        shift = parameters[:, :, -1].reshape(*parameters.shape[:2], *[1] * (like.dim() - 2))
        return (torch.einsum("bij,nj...->bi...", parameters[:, :, :-1], points) + shift) * half
