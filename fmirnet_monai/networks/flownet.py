"""FlowNet-S: the optical flow network that registration networks descend from."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.layers import Conv
from torch import Tensor

from fmirnet_monai.networks.base import PairNetwork
from fmirnet_monai.networks.blocks import near_zero
from fmirnet_monai.networks.vtn import FlowPyramid
from fmirnet_monai.spatial import upsample_field


class FlowNetS(PairNetwork):
    """Both images stacked, strided convolutions down, deconvolutions and flow predictions up to a quarter of the size.

    Dosovitskiy et al., "FlowNet: learning optical flow with convolutional networks", ICCV 2015, which was taught with
    known flows (``RandKnownFieldBatch``, ``EndpointError``). Theirs has 64 to 1024 channels; its loss also
    sees the flows that are predicted on the way up, here only the last one leaves the network.

    Args:
        spatial_dims: D, 2 or 3.
        in_channels: C, channels of one image.
        channels: of each level, from half resolution down, three at least.

    Raises:
        ValueError: when there are fewer levels.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        channels: Sequence[int] = (16, 32, 64, 128, 128, 256),
    ) -> None:
        if len(channels) < 3:
            raise ValueError(f"channels needs at least three levels, got {tuple(channels)}.")
        super().__init__(spatial_dims, in_channels, 2 ** len(channels))
        self.pyramid = FlowPyramid(spatial_dims, 2 * in_channels, channels, kernels=(7, 5, 5), finest=1)
        conv = Conv[Conv.CONV, spatial_dims]
        self.head = near_zero(conv(self.pyramid.out_channels, spatial_dims, 3, padding=1))

    def estimate(self, pair: Tensor) -> Tensor:
        """See :py:meth:`PairNetwork.estimate`."""
        return upsample_field(upsample_field(self.head(self.pyramid.features(pair))))
