"""Region attention: the field is restricted to where an organ is, which a small network predicts."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmirnet_monai.networks.base import crop, extend
from fmirnet_monai.networks.fmirnet import FMIRNet


class RegionPrediction(NamedTuple):
    """What training needs of :py:class:`RegionNetwork`.

    Attributes:
        ddf: field ``(B, D, *spatial)`` in voxels.
        scores: of the organ in the fixed image, ``(B, 1, *spatial)`` (logits).
    """

    ddf: Tensor
    scores: Tensor


class RegionNetwork(nn.Module):
    """FMIRNet whose field fades to none away from an organ of the fixed image.

    "The influence of other organs around the liver" is what the FMIRNet paper names as its failure in 3-D, and to
    restrict the deformation around the organ as its future work. A small segmentation network predicts the organ in the
    fixed image; its probability, widened and smoothed by ``margin``, weights what FMIRNet estimates at each scale.

    Args:
        registration: estimates the field.
        segmentation: from the fixed image ``(B, C, *spatial)`` to scores ``(B, 1, *spatial)``, for example MONAI's
            UNet.
        margin: voxels by which the region is widened, and over which it fades.
        outside: weight far from the organ, in [0, 1]; 1 gives FMIRNet's own field.
        divisor: the segmentation gets sizes that are multiples of it, which a UNet's halves need.

    Raises:
        ValueError: when an option is out of its range.
    """

    def __init__(
        self,
        registration: FMIRNet,
        segmentation: nn.Module,
        margin: int = 4,
        outside: float = 0.0,
        divisor: int = 16,
    ) -> None:
        super().__init__()
        if margin < 0 or not 0 <= outside <= 1:
            raise ValueError(f"margin must be at least 0 and outside in [0, 1], got {margin} and {outside}.")
        self.registration = registration
        self.segmentation = segmentation
        self.margin = margin
        self.outside = outside
        self.divisor = divisor

    def extra_repr(self) -> str:
        """The options that the modules' own lines don't show."""
        return f"margin={self.margin}, outside={self.outside}"

    def forward(self, pair: Tensor) -> Tensor:
        """Field ``(B, D, *spatial)`` in voxels of a pair ``(B, 2 C, *spatial)``, the moving image first; any size."""
        return self.predict(pair)[0]

    @torch.jit.export
    def predict(self, pair: Tensor) -> tuple[Tensor, Tensor]:
        """Field and scores of the organ in the fixed image, see :py:class:`RegionPrediction`."""
        scores = crop(self.segmentation(extend(pair[:, pair.shape[1] // 2 :], self.divisor)), pair)
        # detached: the region is learnt from labels alone, or it would grow to wherever the images differ
        return self.registration.forward_in_region(pair, self.region(scores.detach().sigmoid())), scores

    def region(self, organ: Tensor) -> Tensor:
        """Weight in [0, 1] of the field, from an organ's mask or probability ``(B, 1, *spatial)``."""
        return self.outside + (1 - self.outside) * widen(organ, self.margin)


class RegionTraining(nn.Module):
    """A :py:class:`RegionNetwork` in training: gives field and scores, which its loss wants.

    Args:
        network: the network that is trained.
    """

    def __init__(self, network: RegionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pair: Tensor) -> RegionPrediction:
        """See :py:meth:`RegionNetwork.predict`."""
        return RegionPrediction(*self.network.predict(pair))


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
