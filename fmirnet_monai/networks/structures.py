"""Registration by structures: the field is estimated from both images and from what each of them shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmirnet_monai.networks.base import crop, extend
from fmirnet_monai.networks.fmirnet import FMIRNet


class StructurePrediction(NamedTuple):
    """What training needs of :py:class:`StructureNetwork`.

    Attributes:
        ddf: field ``(B, D, *spatial)`` in voxels.
        scores: logits of the background and the structures, ``(2 B, 1 + K, *spatial)``, all moving images first.
    """

    ddf: Tensor
    scores: Tensor


class StructureNetwork(nn.Module):
    """FMIRNet that also sees which structures a segmentation network finds in each of the images.

    Where structures lie a network learns much sooner than how to move them, and they say what intensities alone don't:
    which edge of one image is which of the other. Segmentation and registration are trained together (as by Xu and
    Niethammer, "DeepAtlas", MICCAI 2019); the former learns from labels alone.

    With a ``region`` the field is confined to some of the structures: "the influence of other organs around the liver"
    is what the FMIRNet paper names as its failure in 3-D, and to restrict the deformation around the organ as its
    future work. Their probability in the fixed image, widened and smoothed, weights what is estimated at each scale.

    Args:
        registration: estimates the field; its ``in_channels`` are one for the image and K for the structures.
        segmentation: from an image ``(B, 1, *spatial)`` to logits ``(B, 1 + K, *spatial)`` of exclusive classes, the
            background first.
        region: numbers of structures, from 1, that the field is confined to; empty for everywhere.
        margin: voxels by which the region is widened, and over which the field fades.
        divisor: the segmentation gets sizes that are multiples of it, which a UNet's halves need.

    Raises:
        ValueError: when an option is out of its range.
    """

    def __init__(
        self,
        registration: FMIRNet,
        segmentation: nn.Module,
        region: Sequence[int] = (),
        margin: int = 8,
        divisor: int = 8,
    ) -> None:
        super().__init__()
        structures = registration.in_channels - 1
        if structures < 1:
            raise ValueError("registration: needs in_channels for the image and each structure, got 1.")
        if margin < 0:
            raise ValueError(f"margin must be at least 0, got {margin}.")
        if wrong := [number for number in region if not 1 <= number <= structures]:
            raise ValueError(f"region: structures have the numbers 1 to {structures}, got {wrong[0]}.")
        self.registration = registration
        self.segmentation = segmentation
        self.confined = len(region) > 0
        self.margin = margin
        self.divisor = divisor
        self.region: Tensor
        inside = torch.zeros(structures)
        inside[[number - 1 for number in region]] = 1
        self.register_buffer("region", inside, persistent=False)

    def extra_repr(self) -> str:
        """The options that the modules' own lines don't show."""
        return f"region={[i + 1 for i in self.region.nonzero().flatten().tolist()]}, margin={self.margin}"

    def forward(self, pair: Tensor) -> Tensor:
        """Field ``(B, D, *spatial)`` in voxels of a pair ``(B, 2, *spatial)``, the moving image first; any size."""
        return self.predict(pair)[0]

    @torch.jit.export
    def predict(self, pair: Tensor) -> tuple[Tensor, Tensor]:
        """Field and scores, see :py:class:`StructurePrediction`."""
        moving, fixed = pair.chunk(2, dim=1)
        scores = self.scores(torch.cat([moving, fixed]))
        # detached: what a structure is, is learnt from labels alone
        in_moving, in_fixed = probabilities(scores.detach()).chunk(2)
        seen = torch.cat([moving, in_moving, fixed, in_fixed], dim=1)
        if not self.confined:
            return self.registration(seen), scores
        region = (in_fixed.movedim(1, -1) @ self.region).unsqueeze(1)
        return self.registration.forward_in_region(seen, widen(region, self.margin)), scores

    @torch.jit.export
    def structures(self, image: Tensor) -> Tensor:
        """Probabilities ``(B, K, *spatial)`` of the structures in an image ``(B, 1, *spatial)``."""
        return probabilities(self.scores(image))

    def scores(self, image: Tensor) -> Tensor:
        """Logits ``(B, 1 + K, *spatial)`` of the background and the structures in an image ``(B, 1, *spatial)``."""
        return crop(self.segmentation(extend(image, self.divisor)), image)


class StructureTraining(nn.Module):
    """A :py:class:`StructureNetwork` in training: gives field and scores, which its loss wants.

    Args:
        network: the network that is trained.
    """

    def __init__(self, network: StructureNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pair: Tensor) -> StructurePrediction:
        """See :py:meth:`StructureNetwork.predict`."""
        return StructurePrediction(*self.network.predict(pair))


def probabilities(scores: Tensor) -> Tensor:
    """Of the structures, ``(B, K, *spatial)``, from logits ``(B, 1 + K, *spatial)`` with the background first."""
    return scores.softmax(1)[:, 1:]


def widen(region: Tensor, margin: int) -> Tensor:
    """A mask or probability ``(B, 1, *spatial)`` widened by ``margin`` voxels along each axis, fading over as many."""
    dims, width = region.dim() - 2, 2 * margin + 1
    wide = F.pad(region, [2 * margin] * (2 * dims), mode="constant", value=0.0)
    # axis by axis, which is the same as one large window and ten times as fast in 3-D
    for axis in range(dims):
        window = [width if i == axis else 1 for i in range(dims)]
        wide = F.max_pool2d(wide, window, stride=1) if dims == 2 else F.max_pool3d(wide, window, stride=1)
    for axis in range(dims):
        window = [width if i == axis else 1 for i in range(dims)]
        wide = F.avg_pool2d(wide, window, stride=1) if dims == 2 else F.avg_pool3d(wide, window, stride=1)
    return wide
