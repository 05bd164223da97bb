"""MONAI's VoxelMorph in the form of the project's registration networks: one tensor in, the field out."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets import VoxelMorphUNet
from torch import Tensor

from fmirnet_monai.networks.base import PairNetwork
from fmirnet_monai.spatial import integrate


class VoxelMorph(PairNetwork):
    """VoxelMorph (Balakrishnan et al., TMI 2019) with MONAI's own backbone and defaults.

    Beside :py:class:`monai.networks.nets.VoxelMorph` it takes moving and fixed image as one tensor, works at any
    size (pads inside, crops after), takes velocities beyond the border from the border voxel (MONAI: zero) and leaves
    out the half-resolution option, which is wrong in MONAI 1.6.1.

    Args:
        spatial_dims: D, 2 or 3.
        in_channels: C, channels of one image.
        channels: levels of the U-Net, see :py:class:`monai.networks.nets.VoxelMorphUNet`.
        unet_out_channels: channels of the U-Net's last level.
        final_conv_channels: channels of the convolutions before the flow head.
        integration_steps: squarings of the velocity field; 0 predicts displacements.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        channels: Sequence[int] = (16, 32, 32, 32, 32, 32),
        unet_out_channels: int = 32,
        final_conv_channels: Sequence[int] = (16, 16),
        integration_steps: int = 0,
    ) -> None:
        super().__init__(spatial_dims, in_channels, 2 ** (len(channels) // 2))
        self.backbone = VoxelMorphUNet(
            spatial_dims=spatial_dims,
            in_channels=2 * in_channels,
            unet_out_channels=unet_out_channels,
            channels=channels,
            final_conv_channels=final_conv_channels,
        )
        self.integration_steps = integration_steps

    def extra_repr(self) -> str:
        """The option that the modules' own lines don't show."""
        return f"integration_steps={self.integration_steps}"

    def estimate(self, pair: Tensor) -> Tensor:
        """See :py:meth:`PairNetwork.estimate`."""
        return integrate(self.backbone(pair), self.integration_steps)
