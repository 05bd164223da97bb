"""UDRSNet: a cascade of ResUNets."""

from __future__ import annotations

from collections.abc import Sequence

from fmirnet_monai.networks.blocks import ResUNet
from fmirnet_monai.networks.cascade import Cascade


class UDRSNet(Cascade):
    """Cascade of ResUnet and warp stages with weights of their own (UDRSNet, reference 22 of the FMIRNet paper).

    Its loss there is SSIM and an L2 penalty on the field, see ``configs/variants/udrsnet.json`` of the bundles.

    Args:
        spatial_dims: D, 2 or 3.
        in_channels: C, channels of one image.
        channels: channels of the levels of each ResUnet, see :py:class:`ResUNet`.
        stages: number of ResUnets.

    Raises:
        ValueError: when ``stages`` is below 1.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        channels: Sequence[int] = (16, 32, 64),
        stages: int = 3,
    ) -> None:
        networks = (ResUNet(spatial_dims, 2 * in_channels, spatial_dims, channels) for _ in range(stages))
        super().__init__(spatial_dims, in_channels, 2 ** (len(channels) - 1), networks)
