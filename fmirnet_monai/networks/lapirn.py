"""LapIRN: one network per level of an image pyramid, trained one after another."""

import torch
import torch.nn.functional as F
from monai.networks.layers import Conv
from torch import Tensor, nn

from fmirnet_monai.networks.base import PairNetwork
from fmirnet_monai.networks.blocks import near_zero
from fmirnet_monai.spatial import downsample, integrate, upsample_field, warp

SLOPE = 0.2


class LapIRN(PairNetwork):
    """Laplacian pyramid registration network (Mok and Chung, MICCAI 2020).

    From the coarsest level up, each level's network sees the moving image warped by the field so far, the fixed image
    and the velocity so far, and adds to that velocity; the features that a level decodes are added to those that the
    next one encodes. Levels are trained one after another: :py:meth:`set_levels`, and for a training run
    :py:class:`fmirnet_monai.engines.GrowLevels`. How many take part is a buffer, so that weights saved at any time
    give the field that they were chosen by.

    The paper measures each level's similarity at that level's own resolution; here the field is brought to full
    resolution, where the loss of all networks is measured.

    Args:
        spatial_dims: D, 2 or 3.
        in_channels: C, channels of one image.
        features: channels of every layer (the paper: 28).
        levels: levels of the pyramid.
        blocks: residual blocks of each level.
        integration_steps: squarings of the velocity field; 0 predicts displacements, the paper's LapIRN_disp.
        max_velocity: what one level can add at most, in voxels of full resolution (the paper: 0.2 of the size, which
            is 25.6 for 128 voxels).

    Raises:
        ValueError: when ``levels`` is below 1, or ``integration_steps`` below 0.
    """

    active_levels: Tensor  # TorchScript reads this line: no annotations from __future__ in this file

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        features: int = 24,
        levels: int = 3,
        blocks: int = 5,
        integration_steps: int = 7,
        max_velocity: float = 25.0,
    ) -> None:
        super().__init__(spatial_dims, in_channels, 2**levels)
        if levels < 1:
            raise ValueError(f"levels must be at least 1, got {levels}.")
        if integration_steps < 0:
            raise ValueError(f"integration_steps must be at least 0, got {integration_steps}.")
        self.integration_steps = integration_steps
        self.max_velocity = max_velocity
        pair = 2 * in_channels
        self.levels = nn.ModuleList(
            _Level(spatial_dims, pair if i == 0 else pair + spatial_dims, features, blocks) for i in range(levels)
        )
        self.register_buffer("active_levels", torch.tensor(levels))

    def extra_repr(self) -> str:
        """The options that the modules' own lines don't show."""
        return f"integration_steps={self.integration_steps}, max_velocity={self.max_velocity}"

    def set_levels(self, active: int, frozen: int = 0) -> None:
        """Choose which levels take part, counted from the coarsest.

        Args:
            active: levels that take part; the finer ones don't, and get no gradient.
            frozen: of these, the levels whose weights stand still, so that a new level, whose output is no use yet,
                does not spoil them (the paper: for the first 2000 steps of a new level).

        Raises:
            ValueError: when ``frozen < active <= levels`` does not hold.
        """
        if not 0 <= frozen < active <= len(self.levels):
            raise ValueError(
                f"active must be in 1 … {len(self.levels)} and frozen in 0 … active - 1, "
                f"got active={active} and frozen={frozen}."
            )
        self.active_levels.fill_(active)
        for i, level in enumerate(self.levels):
            level.requires_grad_(i >= frozen)
            if i < frozen:
                level.zero_grad(set_to_none=True)  # by a gradient of zero, Adam's momentum would go on moving them

    def estimate(self, pair: Tensor) -> Tensor:
        """See :py:meth:`PairNetwork.estimate`."""
        pyramid = [pair]
        for _ in range(len(self.levels) - 1):
            pyramid.append(downsample(pyramid[-1]))
        active = int(self.active_levels)
        velocity = self.identity(pyramid[-1])
        field = velocity
        embedding: Tensor | None = None
        for i, level in enumerate(self.levels):
            scale = len(pyramid) - 1 - i
            x = pyramid[scale]
            if i > 0:
                velocity, field = upsample_field(velocity), upsample_field(field)
                warped = warp(x[:, : self.in_channels], field)
                x = torch.cat([warped, x[:, self.in_channels :], velocity], dim=1)
            if i < active:
                increment, embedding = level(x, embedding)
                velocity = velocity + self.max_velocity / 2.0**scale * F.softsign(increment)
                field = integrate(velocity, self.integration_steps)
        return field


class _Level(nn.Module):
    """The network of one level: encoder, residual blocks at half the level's resolution, decoder."""

    def __init__(self, spatial_dims: int, in_channels: int, features: int, blocks: int) -> None:
        super().__init__()
        conv, deconv = Conv[Conv.CONV, spatial_dims], Conv[Conv.CONVTRANS, spatial_dims]

        def activated(inputs: int) -> list[nn.Module]:
            return [conv(inputs, features, 3, padding=1), nn.LeakyReLU(SLOPE)]

        self.encoder = nn.Sequential(*activated(in_channels), conv(features, features, 3, padding=1))
        self.down = conv(features, features, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LeakyReLU(SLOPE), *activated(features), conv(features, features, 3, padding=1))
            for _ in range(blocks)
        )
        self.up = deconv(features, features, 2, stride=2)
        self.decoder = nn.Sequential(*activated(2 * features), near_zero(conv(features, spatial_dims, 3, padding=1)))

    def forward(self, x: Tensor, embedding: Tensor | None) -> tuple[Tensor, Tensor]:
        """The raw increment and the features for the next level, both on the grid of ``x``."""
        skip = self.encoder(x)
        x = self.down(skip)
        if embedding is not None:
            x = x + embedding
        for block in self.blocks:
            x = x + block(x)
        embedding = self.up(x)
        return self.decoder(torch.cat([embedding, skip], dim=1)), embedding
