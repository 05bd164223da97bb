"""Registration by direct optimisation of the field: refinement of a prediction, or the whole way without a network.

All optimizers are called as ``optimizer(moving, fixed, initial) -> ddf`` and work coarse to fine on an image pyramid,
against any loss of two images, on any device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from monai.networks.layers import gaussian_1d, separable_filtering
from torch import Tensor

from fmirnet_monai.spatial import compose, identity_grid, integrate, warp

Similarity = Callable[[Tensor, Tensor], Tensor]


def smooth(tensor: Tensor, sigma: float) -> Tensor:
    """Gaussian filter along the spatial axes of ``(B, C, *spatial)``, ``sigma`` in voxels, border values repeated."""
    if sigma <= 0:
        return tensor
    kernel = gaussian_1d(torch.as_tensor(sigma), truncated=4.0).to(tensor)
    return separable_filtering(tensor, [kernel] * (tensor.dim() - 2), mode="replicate")


def resize(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Linear interpolation of ``(B, C, *spatial)`` to ``size`` over the same extent; shrinking smooths first."""
    factors = [old / new for old, new in zip(tensor.shape[2:], size, strict=True)]
    if max(factors) > 1:
        kernels = [gaussian_1d(torch.as_tensor(max((f - 1) / 2, 1e-3)), truncated=4.0).to(tensor) for f in factors]
        tensor = separable_filtering(tensor, kernels, mode="replicate")
    mode = "bilinear" if tensor.dim() == 4 else "trilinear"
    return F.interpolate(tensor, size=tuple(size), mode=mode, align_corners=False)


def resize_field(ddf: Tensor, size: Sequence[int]) -> Tensor:
    """The field ``(B, D, *spatial)`` on a grid of another size over the same extent, in voxels of that grid."""
    scale = [new / old for old, new in zip(ddf.shape[2:], size, strict=True)]
    return resize(ddf, size) * torch.tensor(scale).to(ddf).reshape(1, -1, *[1] * len(scale))


class FieldOptimizer(ABC):
    """Coarse-to-fine descent on the dissimilarity of the warped and the fixed image.

    Args:
        similarity: loss of two images ``(B, C, *spatial)``, such as :py:class:`torch.nn.MSELoss`, any of MONAI's, or
            :py:class:`fmirnet_monai.losses.RegistrationLoss` without field terms.
        iterations: at most so many per level, the coarsest first; each finer level has twice the resolution.
        tolerance: a level ends when the mean loss of the last ten iterations is not lower, by this fraction, than that
            of the ten before.

    Raises:
        ValueError: when an option is out of its range.
    """

    window = 10
    smallest = 16  # voxels of the coarsest level along an axis that is not shorter itself

    def __init__(self, similarity: Similarity, iterations: Sequence[int], tolerance: float = 1e-3) -> None:
        if not iterations or min(iterations) < 0:
            raise ValueError(f"iterations must be one or more numbers of at least 0, got {iterations}.")
        self.similarity = similarity
        self.iterations = tuple(iterations)
        self.tolerance = tolerance

    def __call__(self, moving: Tensor, fixed: Tensor, initial: Tensor | None = None) -> Tensor:
        """Register a batch.

        Args:
            moving: ``(B, C, *spatial)``, intensities about [0, 1].
            fixed: same shape.
            initial: field to start from, ``(B, D, *spatial)`` in voxels; by default the identity.

        Returns:
            ``(B, D, *spatial)`` in voxels; the initial field where nothing better was found.
        """
        if moving.shape != fixed.shape:
            raise ValueError(f"moving and fixed must have one shape, got {list(moving.shape)} and {list(fixed.shape)}.")
        size = moving.shape[2:]
        start = moving.new_zeros(moving.shape[0], len(size), *size) if initial is None else initial
        ddf = self.optimise(start, self.pyramid(moving, fixed))
        with torch.no_grad():
            before, after = (self.similarity(warp(moving, field), fixed) for field in (start, ddf))
        return ddf if after < before else start

    @abstractmethod
    def optimise(self, initial: Tensor, pyramid: Iterable[tuple[Tensor, Tensor, int]]) -> Tensor:
        """Improve the field level by level, see :py:meth:`pyramid`."""

    def pyramid(self, moving: Tensor, fixed: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Both images and the number of iterations of each level that has any, the coarsest first."""
        for level, iterations in enumerate(self.iterations):
            factor = 2 ** (len(self.iterations) - 1 - level)
            size = [max(-(-n // factor), min(n, self.smallest)) for n in moving.shape[2:]]
            if iterations > 0:
                yield resize(moving, size), resize(fixed, size), iterations

    def converged(self, losses: Sequence[float]) -> bool:
        """Whether the recorded losses of a level have stopped falling."""
        if len(losses) < 2 * self.window:
            return False
        before, now = (sum(part) for part in (losses[-2 * self.window : -self.window], losses[-self.window :]))
        return now > before - self.tolerance * abs(before)  # losses such as local NCC are negative


class DenseOptimizer(FieldOptimizer):
    """Greedy composition of small smooth displacements, a velocity for every voxel and iteration.

    Each iteration takes the gradient of the similarity, smooths it, scales it so that its longest vector has ``step``
    voxels, composes the field with it and smooths the field. Composition keeps the map whole where gradient descent on
    the vectors themselves tears it (Avants et al., "Symmetric diffeomorphic image registration", MedIA 2008, and
    Vercauteren et al., "Diffeomorphic demons", NeuroImage 2009, descend alike).

    Args:
        similarity: see :py:class:`FieldOptimizer`.
        iterations: see :py:class:`FieldOptimizer`.
        step: length of the longest update in voxels of the level, below 1.
        update_sigma: standard deviation in voxels of the Gaussian that smooths each update.
        field_sigma: the same for the field itself; more makes it smoother and less exact.
        tolerance: see :py:class:`FieldOptimizer`.
    """

    def __init__(
        self,
        similarity: Similarity,
        iterations: Sequence[int] = (40, 40, 40),
        step: float = 0.5,
        update_sigma: float = 2.0,
        field_sigma: float = 0.35,
        tolerance: float = 1e-3,
    ) -> None:
        super().__init__(similarity, iterations, tolerance)
        if not 0 < step < 1:
            raise ValueError(f"step must lie between 0 and 1 voxel, got {step}.")
        self.step = step
        self.update_sigma = update_sigma
        self.field_sigma = field_sigma

    @torch.no_grad()
    def optimise(self, initial: Tensor, pyramid: Iterable[tuple[Tensor, Tensor, int]]) -> Tensor:
        """Bring the field to each level and descend there."""
        ddf = initial
        for moving, fixed, iterations in pyramid:
            ddf = self._descend(moving, fixed, resize_field(ddf, moving.shape[2:]), iterations)
        return resize_field(ddf, initial.shape[2:])

    def _descend(self, moving: Tensor, fixed: Tensor, ddf: Tensor, iterations: int) -> Tensor:
        losses: list[float] = []
        while len(losses) < iterations and not self.converged(losses):
            force, loss = self._force(warp(moving, ddf), fixed)
            losses.append(loss)
            length = _longest(force).clamp(min=torch.finfo(force.dtype).tiny)
            ddf = smooth(compose(ddf, -self.step / length * force), self.field_sigma)
        return ddf

    def _force(self, warped: Tensor, fixed: Tensor) -> tuple[Tensor, float]:
        """Smoothed gradient of the similarity with respect to a displacement of the warped image, and its value."""
        with torch.enable_grad():
            leaf = warped.detach().requires_grad_()
            loss = self.similarity(leaf, fixed)
            (slope,) = torch.autograd.grad(loss, leaf)
        axes = range(2, warped.dim())
        gradient = torch.stack([(slope * torch.gradient(warped, dim=axis)[0]).sum(1) for axis in axes], dim=1)
        return smooth(gradient, self.update_sigma), float(loss)


def _longest(vectors: Tensor) -> Tensor:
    """Length of the longest vector of each item ``(B, D, *spatial)``, shaped to divide it."""
    return vectors.norm(dim=1, keepdim=True).amax(dim=tuple(range(2, vectors.dim())), keepdim=True)


class ParametricOptimizer(FieldOptimizer):
    """Adam on the parameters of a map with which the initial field is composed.

    Args:
        similarity: see :py:class:`FieldOptimizer`.
        iterations: see :py:class:`FieldOptimizer`.
        learning_rate: of Adam.
        tolerance: see :py:class:`FieldOptimizer`.
    """

    def __init__(
        self, similarity: Similarity, iterations: Sequence[int], learning_rate: float, tolerance: float = 1e-3
    ) -> None:
        super().__init__(similarity, iterations, tolerance)
        self.learning_rate = learning_rate

    @abstractmethod
    def parameters(self, previous: Tensor | None, like: Tensor) -> Tensor:
        """Parameters for fields of the size of ``like``: those of the level before, or of the identity."""

    @abstractmethod
    def displacement(self, parameters: Tensor, like: Tensor) -> Tensor:
        """The map that the parameters mean, as a field of the size of ``like``."""

    @torch.enable_grad()
    def optimise(self, initial: Tensor, pyramid: Iterable[tuple[Tensor, Tensor, int]]) -> Tensor:
        """Carry the parameters from level to level."""
        parameters = None
        for moving, fixed, iterations in pyramid:
            start = resize_field(initial, moving.shape[2:])
            parameters = self.parameters(parameters, start).detach().requires_grad_()
            adam = torch.optim.Adam([parameters], lr=self.learning_rate)
            losses: list[float] = []
            while len(losses) < iterations and not self.converged(losses):
                adam.zero_grad()
                loss = self.similarity(warp(moving, compose(start, self.displacement(parameters, start))), fixed)
                loss.backward()
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
        similarity: Similarity,
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
        similarity: Similarity,
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
