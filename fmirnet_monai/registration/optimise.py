"""Registration by direct optimisation of the field: refinement of a prediction, or the whole way without a network.

All optimizers are called as ``optimizer(moving, fixed, initial, ...) -> ddf`` and work coarse to fine on an image
pyramid, against any loss of two images, on any device. The similarity is that of the voxels that both images show:
where the field leads out of the moving image or its mask, or the fixed image is masked, nothing is compared and nothing
pulls.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from fmirnet_monai.losses import SIMILARITIES, RegistrationLoss, compare
from fmirnet_monai.spatial import resize_field, smooth

from .guides import Guide, longest
from .level import LOST, Level, binary, resized

Similarity = Callable[..., Tensor]
Start = Callable[..., Tensor]
FLOOR = 0.1  # error of a guide, below which no change of it counts as a large one
AHEAD = {"cpu": 1}  # iterations between readings of the losses, where reading them costs nothing
LOST_BY_START = 0.6  # of what the initial field sees: where headers are wrong, what is right may see less


class FieldOptimizer(ABC):
    """Coarse-to-fine descent on the dissimilarity of the warped and the fixed image.

    Pushing what fits badly out of view would lower it. What is seen is therefore a constant to the gradient; a field is
    judged where both it and the one it started from see; and one that loses more than 30 % of what was seen is not
    taken, nor a start that sees less than 40 % of what the initial field sees.

    Args:
        similarity: name in :py:data:`fmirnet_monai.losses.SIMILARITIES`, or a loss of two images ``(B, C, *spatial)``,
            such as :py:class:`torch.nn.MSELoss`, any of MONAI's, or
            :py:class:`fmirnet_monai.losses.RegistrationLoss`, of which the similarity terms count. See
            :py:func:`fmirnet_monai.losses.compare` for how it is confined to what is seen.
        iterations: at most so many per level, the coarsest first; each finer level has twice the resolution.
        tolerance: a level ends, item by item, when the mean loss of the last ten iterations is not lower, by this
            fraction, than that of the ten before.

    Raises:
        ValueError: when an option is out of its range.
    """

    window = 10
    starts: tuple[Start, ...] = ()
    smallest = 16  # voxels of the coarsest level along an axis that is not shorter itself

    def __init__(self, similarity: str | Similarity, iterations: Sequence[int], tolerance: float = 1e-3) -> None:
        if not iterations or min(iterations) < 0:
            raise ValueError(f"iterations must be one or more numbers of at least 0, got {iterations}.")
        if isinstance(similarity, str) and similarity not in SIMILARITIES:
            raise ValueError(f"similarity must be one of {', '.join(SIMILARITIES)}, got {similarity!r}.")
        self.similarity = similarity
        self.iterations = tuple(iterations)
        self.tolerance = tolerance

    def __call__(
        self,
        moving: Tensor,
        fixed: Tensor,
        initial: Tensor | None = None,
        moving_mask: Tensor | None = None,
        fixed_mask: Tensor | None = None,
        spacing: Sequence[float] | None = None,
        guides: Sequence[Guide] = (),
        begun: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Register a batch.

        Args:
            moving: ``(B, C, *spatial)``, intensities about [0, 1].
            fixed: same shape.
            initial: field to start from, ``(B, D, *spatial)`` in voxels; by default the identity.
            moving_mask: ``(B, 1, *spatial)``, above 0 where the moving image is valid; by default everywhere.
            fixed_mask: the same of the fixed image.
            spacing: voxel size along each axis, in any unit; by default equal. Only the dense one makes use of it.
            guides: what else is to fit, of the dense one.
            begun: the fields that :py:meth:`begin` gives, where they are known already.

        Returns:
            ``(B, D, *spatial)`` in voxels; the initial field where nothing better was found.
        """
        if moving.shape != fixed.shape:
            raise ValueError(f"moving and fixed must have one shape, got {list(moving.shape)} and {list(fixed.shape)}.")
        size = moving.shape[2:]
        start = moving.new_zeros(moving.shape[0], len(size), *size) if initial is None else initial
        masks = [binary(mask) for mask in (moving_mask, fixed_mask)]
        levels = self.pyramid(moving, fixed, masks[0], masks[1], spacing or [1.0] * len(size), guides)
        begun = self.begin(moving, fixed, masks[0], masks[1]) if begun is None else begun
        ddf = self.optimise([start, *begun], levels)
        finest = Level(moving, fixed, masks[0], masks[1], 0, start.new_ones(()), tuple(guides))
        return _where(self.better(finest, start, ddf), ddf, start)

    def begin(
        self, moving: Tensor, fixed: Tensor, moving_mask: Tensor | None, fixed_mask: Tensor | None
    ) -> list[Tensor]:
        """The fields that descent starts from beside the initial one."""
        return [start(moving, fixed, moving_mask=moving_mask, fixed_mask=fixed_mask) for start in self.starts]

    @torch.no_grad()
    def better(self, level: Level, before: Tensor, after: Tensor, margin: float = 0.0) -> Tensor:
        """Whether each item's field fits better than another where both see, without losing much of the view.

        Better means that the dissimilarity is lower by more than ``margin`` of its size. With guides, the shares by
        which it and their errors are lower, of the larger value each, add up by their weights.
        """
        both = level.seen(before) & level.seen(after)
        losses = [self.losses(level.through(level.moving, ddf), level.fixed, both) for ddf in (before, after)]
        fits = losses[1] < losses[0] - margin * losses[0].abs()
        if level.guides:
            gain = (losses[0] - losses[1]) / torch.maximum(losses[0].abs(), losses[1].abs()).clamp(min=1e-9)
            for guide in level.guides:
                errors = [guide.errors(ddf, both) for ddf in (before, after)]
                gain += guide.weight * (errors[0] - errors[1]) / torch.maximum(errors[0], errors[1]).clamp(min=FLOOR)
            fits = gain > margin
        return level.keeps_view(before, after, LOST_BY_START if self.starts else LOST) & fits

    def losses(self, warped: Tensor, fixed: Tensor, seen: Tensor) -> Tensor:
        """The dissimilarity of each item over what is seen, ``(B)``."""
        similarity = _named(self.similarity, warped.dim() - 2) if isinstance(self.similarity, str) else self.similarity
        measure = similarity.dissimilarity if isinstance(similarity, RegistrationLoss) else similarity
        everywhere = seen.device.type == "cpu" and bool(seen.all())  # a GPU would be waited for
        return compare(measure, warped, fixed, None if everywhere else seen, each=True)

    @abstractmethod
    def optimise(self, starts: Sequence[Tensor], pyramid: Iterable[Level]) -> Tensor:
        """Improve the first start, or the most promising one, level by level, see :py:meth:`pyramid`."""

    def pyramid(
        self,
        moving: Tensor,
        fixed: Tensor,
        moving_mask: Tensor | None,
        fixed_mask: Tensor | None,
        spacing: Sequence[float],
        guides: Sequence[Guide] = (),
    ) -> Iterator[Level]:
        """The levels that have any iterations, the coarsest first."""
        for level, iterations in enumerate(self.iterations):
            factor = 2 ** (len(self.iterations) - 1 - level)
            size = [max(-(-n // factor), min(n, self.smallest)) for n in moving.shape[2:]]
            if iterations > 0:
                voxel = torch.tensor([s * n / m for s, n, m in zip(spacing, moving.shape[2:], size, strict=True)])
                scale = (voxel.min() / voxel).to(moving).reshape(1, -1, *[1] * len(size))
                sides = resized(moving, moving_mask, size), resized(fixed, fixed_mask, size)
                guided = tuple(guide.resized(size) for guide in guides)
                yield Level(sides[0][0], sides[1][0], sides[0][1], sides[1][1], iterations, scale, guided)

    def converged(self, losses: Sequence[float]) -> bool:
        """Whether the recorded losses of a level have stopped falling."""
        if len(losses) < 2 * self.window:
            return False
        before, now = (sum(part) for part in (losses[-2 * self.window : -self.window], losses[-self.window :]))
        return now > before - self.tolerance * abs(before)  # losses such as local NCC are negative


@lru_cache
def _named(similarity: str, dims: int) -> Similarity:
    return SIMILARITIES[similarity](dims)


class DenseOptimizer(FieldOptimizer):
    """Greedy composition of small smooth displacements, a velocity for every voxel and iteration.

    Each iteration takes the gradient of the similarity, smooths it, scales it so that its longest vector has ``step``
    voxels, composes the field with it and smooths the field. Composition keeps the map whole where gradient descent on
    the vectors themselves tears it (Avants et al., "Symmetric diffeomorphic image registration", MedIA 2008, and
    Vercauteren et al., "Diffeomorphic demons", NeuroImage 2009, descend alike).

    The step counts in mm: an update goes down the gradient by mm, and its length is in voxels of the axis with the
    smallest ones. Smoothing counts in each axis' own voxels. Both were chosen on volumes of thick slices
    (``benchmarks/anisotropy.py``): slices of four times the thickness say too little about motion across them to do
    with less smoothing there.

    Args:
        similarity: see :py:class:`FieldOptimizer`.
        iterations: see :py:class:`FieldOptimizer`.
        step: length of the longest update in voxels of the level, below 1.
        update_sigma: standard deviation in voxels of the Gaussian that smooths each update.
        field_sigma: the same for the field itself; more makes it smoother and less exact.
        tolerance: see :py:class:`FieldOptimizer`.
        starts: fields to start from beside the initial one, each as a function
            ``start(moving, fixed, moving_mask=None, fixed_mask=None) -> ddf`` such as :py:class:`DiscreteSearch` or
            :py:class:`AffineOptimizer`. Each is brought down on the coarsest level; the one that then fits best is
            followed, item by item.
        margin: by how much of the dissimilarity a start must fit better than the ones before it to be followed.
        anchored: keep what is known already, such as a network's field: only what a level adds to the field that it
            starts from is smoothed, by ``field_sigma``, and not the whole.
    """

    power = 2  # of the voxels' sides, that turns a gradient by voxels into a displacement along the gradient by mm

    def __init__(
        self,
        similarity: str | Similarity = "auto",
        iterations: Sequence[int] = (40, 40, 40),
        step: float = 0.5,
        update_sigma: float = 2.0,
        field_sigma: float = 0.35,
        tolerance: float = 1e-3,
        starts: Sequence[Start] = (),
        margin: float = 0.0,
        anchored: bool = False,
    ) -> None:
        super().__init__(similarity, iterations, tolerance)
        if not 0 < step < 1:
            raise ValueError(f"step must lie between 0 and 1 voxel, got {step}.")
        self.step = step
        self.update_sigma = update_sigma
        self.field_sigma = field_sigma
        self.starts = tuple(starts)
        self.margin = margin
        self.anchored = anchored

    def departs(self, level: Level, begun: Sequence[Tensor]) -> bool:
        """Whether one of the starts fits better than no displacement, by more than the margin, for any item."""
        still = level.moving.new_zeros(len(level.moving), len(level.size), *level.size)
        return any(bool(self.better(level, still, start, self.margin).any()) for start in begun)

    @torch.no_grad()
    def optimise(self, starts: Sequence[Tensor], pyramid: Iterable[Level]) -> Tensor:
        """Bring the fields to each level and descend there; after the first level only with the best."""
        size, fields = starts[0].shape[2:], list(starts)
        for level in pyramid:
            count = len(starts[0])  # all starts descend as one batch
            together = torch.cat([resize_field(ddf, level.size) for ddf in fields])
            best, *others = self._descend(level.items([*range(count)] * len(fields)), together).split(count)
            for other in others:
                best = _where(self.better(level, best, other, self.margin), other, best)
            fields = [best]
        return resize_field(fields[0], size)

    def _descend(self, level: Level, start: Tensor) -> Tensor:
        """Descend with each item until it has converged; one that then sees too little stays where it was.

        On a GPU the losses are read after every few iterations, for reading them waits for it.
        """
        ddf = start.clone()
        added = torch.zeros_like(start)
        history: list[list[list[float]]] = [[] for _ in ddf]  # of each item the loss and each guide's error

        def goes_on(past: list[list[float]]) -> bool:
            return len(past) < level.iterations and not all(self.converged(term) for term in zip(*past, strict=True))

        while going := [i for i, past in enumerate(history) if not past or goes_on(past)]:
            part = slice(None) if len(going) == len(history) else going
            own = level.items(going)
            ahead = min(AHEAD.get(ddf.device.type, self.window), level.iterations - len(history[going[0]]))
            unread = []
            for _ in range(ahead):
                force, losses = self._force(own, ddf[part])
                unread.append(losses)
                length = longest(force / level.scale).clamp(min=torch.finfo(force.dtype).tiny)
                update = -self.step / length * force
                ddf[part], added[part] = self.moved(own, start[part], ddf[part], added[part], update)
            for values in torch.stack(unread).tolist():
                for item, loss in zip(going, values, strict=True):
                    history[item].append(loss)
        return _where(level.keeps_view(start, ddf), ddf, start)

    def moved(self, level: Level, start: Tensor, ddf: Tensor, added: Tensor, update: Tensor) -> tuple[Tensor, Tensor]:
        """The field after an update, and what it adds to the level's start, each ``(B, D, *spatial)`` in voxels."""
        if not self.anchored:
            return smooth(level.compose(ddf, update), self.field_sigma), added
        added = smooth(level.compose(added, update), self.field_sigma)
        return level.compose(start, added), added

    def _force(self, level: Level, ddf: Tensor) -> tuple[Tensor, Tensor]:
        """Smoothed gradient of the dissimilarity with respect to a displacement of the warped image, less the guides'
        pull, and the values ``(B, 1 + guides)``.
        """
        warped, seen = level.warped(ddf)
        with torch.enable_grad():
            leaf = warped.detach().requires_grad_()
            losses = self.losses(leaf, level.fixed, seen)
            (slope,) = torch.autograd.grad(losses.sum(), leaf)
        axes = range(2, warped.dim())
        gradient = torch.stack([(slope * torch.gradient(warped, dim=axis)[0]).sum(1) for axis in axes], dim=1)
        force, values = smooth(gradient * level.scale**self.power, self.update_sigma), [losses.detach()]
        pulls = [(guide.weight, *guide.pull(ddf, seen, level.scale, self.update_sigma)) for guide in level.guides]
        if pulls:
            strongest = longest(force / level.scale)
            strongest = torch.where(strongest > 0, strongest, 1.0)  # guides pull where the images don't, too
            force = force - strongest * sum(weight * pull for weight, pull, _ in pulls)
            values += [errors for *_, errors in pulls]
        return force, torch.stack(values, dim=1)


def _where(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Of each item ``(B, D, *spatial)`` the one or the other."""
    return torch.where(chosen.reshape(-1, *[1] * (one.dim() - 1)), one, other)
