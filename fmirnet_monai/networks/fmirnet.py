"""FMIRNet: fast multiscale unsupervised deformable image registration, in 2-D and 3-D."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fmirnet_monai.networks.base import PairNetwork, crop, extend
from fmirnet_monai.networks.blocks import LocalCorrelation, ResUNet, ScaleAttention, SpatialAttention
from fmirnet_monai.spatial import compose, downsample, integrate, upsample_field, warp

COMBINE = ("add", "compose")
ATTENTION = ("none", "spatial", "channel", "spatial+channel")


class FMIRNet(PairNetwork):
    """Predict the displacement field that registers a moving to a fixed image, from coarse to fine.

    A ResUnet estimates one field per scale of an image pyramid; the fusion module combines and weights them
    ("FMIRNet", J. X-Ray Sci. Technol. 2024, XST-240159). The paper's form is
    ``combine="add", attention="spatial", residual=True, num_scales=3``: the fields are brought to full resolution
    and added, then weighted element by element. ``combine="compose"`` lets each finer scale see the moving image
    already warped by the coarser field and composes the fields; attention then acts on each scale's increment.

    Args:
        spatial_dims: D, 2 or 3.
        in_channels: C, channels of *one* image; the network's input has 2 C.
        channels: channels of the levels of each ResUnet, see :py:class:`ResUNet`.
        num_scales: number of scales of the image pyramid: 1, 2, 3 are FMIRNet-1, -2 and FMIRNet of the paper.
        share_weights: one ResUnet for all scales; otherwise one per scale.
        combine: ``"add"`` or ``"compose"``.
        attention: ``"none"``, ``"spatial"``, ``"channel"`` (a weight per scale) or ``"spatial+channel"``.
        residual: spatial attention gives ``field + W * field``; otherwise ``W * field``.
        integration_steps: when above 0, what is predicted are stationary velocity fields, integrated with this many
            squarings: the map is a diffeomorphism and :py:meth:`forward_with_inverse` gives its inverse.
        half_resolution: integrate on a grid of half the size (faster, smoother); without integration, or with a
            ``stride`` of 2, no effect.
        norm: MONAI's name of a normalisation layer for the ResUnet, or None; with one, the coarsest level of the
            coarsest scale must be larger than one voxel.
        finest_scale: halvings of the finest scale that a field is estimated on, which is then upsampled. 0 is the full
            resolution; 1 needs about an eighth of the time and memory in 3-D, a quarter in 2-D.
        correlation: when above 0, the ResUnet also sees how well learnt features of both images agree at each offset
            of up to this many voxels, see :py:func:`local_correlation`.
        stride: of the ResUnet's first unit, 1 or 2. With 2 it sees the images of each scale whole, but fields are
            estimated, integrated and composed at half that resolution.

    Raises:
        ValueError: when an option has a value that is not in the lists above.

    Example::

        >>> net = FMIRNet(spatial_dims=2)
        >>> net(torch.rand(1, 2, 127, 93)).shape  # moving and fixed image, any size
        torch.Size([1, 2, 127, 93])
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        channels: Sequence[int] = (16, 32, 64),
        num_scales: int = 3,
        share_weights: bool = True,
        combine: str = "add",
        attention: str = "spatial",
        residual: bool = True,
        integration_steps: int = 0,
        half_resolution: bool = True,
        norm: str | tuple | None = None,
        finest_scale: int = 0,
        correlation: int = 0,
        stride: int = 1,
    ) -> None:
        if num_scales < 1:
            raise ValueError(f"num_scales must be at least 1, got {num_scales}.")
        if finest_scale < 0:
            raise ValueError(f"finest_scale must be at least 0, got {finest_scale}.")
        if stride not in (1, 2):
            raise ValueError(f"stride must be 1 or 2, got {stride}.")
        halved = integration_steps > 0 and half_resolution
        halvings = finest_scale + num_scales - 1 + (1 if stride == 2 or halved else 0)
        super().__init__(spatial_dims, in_channels, 2**halvings)
        if combine not in COMBINE:
            raise ValueError(f"combine must be one of {COMBINE}, got {combine!r}.")
        if attention not in ATTENTION:
            raise ValueError(f"attention must be one of {ATTENTION}, got {attention!r}.")
        if integration_steps < 0:
            raise ValueError(f"integration_steps must be at least 0, got {integration_steps}.")
        if correlation < 0:
            raise ValueError(f"correlation must be at least 0, got {correlation}.")
        self.num_scales = num_scales
        self.composing = combine == "compose"
        self.integration_steps = integration_steps
        self.half_resolution = half_resolution and stride == 1
        self.finest_scale = finest_scale
        self.stride = stride

        self.options = (
            f"num_scales={num_scales}, share_weights={share_weights}, combine={combine}, attention={attention}, "
            f"residual={residual}, integration_steps={integration_steps}, half_resolution={half_resolution}, "
            f"finest_scale={finest_scale}, correlation={correlation}, stride={stride}"
        )
        networks = 1 if share_weights else num_scales
        inputs = 2 * in_channels
        self.correlation: LocalCorrelation | None = None
        if correlation > 0:
            self.correlation = LocalCorrelation(spatial_dims, in_channels, correlation)
            inputs += self.correlation.out_channels
        self.estimators = nn.ModuleList(
            ResUNet(spatial_dims, inputs, spatial_dims, channels, norm, stride) for _ in range(networks)
        )
        self.scale_attention = ScaleAttention() if "channel" in attention else None
        self.spatial_attention = SpatialAttention(spatial_dims, residual) if "spatial" in attention else None

    def extra_repr(self) -> str:
        """The options that the modules' own lines don't show."""
        return self.options

    def estimate(self, pair: Tensor) -> Tensor:
        """See :py:meth:`PairNetwork.estimate`."""
        return self._register(pair, None, inverse=False)[0]

    @torch.jit.export
    def forward_in_region(self, x: Tensor, region: Tensor) -> Tensor:
        """The field restricted to a region of the fixed image: what is estimated at each scale is weighted by it.

        Args:
            x: pair, see :py:meth:`PairNetwork.forward`.
            region: weights in [0, 1], ``(B, 1, *spatial)``; smooth ones keep the field smooth.

        Returns:
            ``(B, D, *spatial)`` in voxels.
        """
        return crop(self._register(self.pad(x), extend(region, self.divisor), inverse=False)[0], x)

    @torch.jit.export
    def forward_with_inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The field of :py:meth:`forward` and its inverse, for networks with ``integration_steps > 0``.

        Returns:
            two fields ``(B, D, *spatial)`` in voxels, moving to fixed and fixed to moving.

        Raises:
            ValueError: when the network predicts displacements, which have no exact inverse.
        """
        if self.integration_steps == 0:
            raise ValueError("only a network with integration_steps > 0 has an inverse, got integration_steps=0.")
        field, backward = self._register(self.pad(x), None, inverse=True)
        return crop(field, x), crop(backward, x)

    def _register(self, pair: Tensor, region: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        """The field and, with ``inverse`` and velocities, its inverse; otherwise something."""
        for _ in range(self.finest_scale):
            pair = downsample(pair)
        pyramid = [pair]
        for _ in range(self.num_scales - 1):
            pyramid.append(downsample(pyramid[-1]))
        weights: list[Tensor] = []
        if region is not None:
            for _ in range(self.finest_scale + self.stride - 1):
                region = downsample(region)
            weights.append(region)
            for _ in range(self.num_scales - 1):
                weights.append(downsample(weights[-1]))

        field = self.identity(pyramid[-1] if self.stride == 1 else downsample(pyramid[-1]))
        backward = field
        for i in range(self.num_scales):
            scale = self.num_scales - 1 - i
            pair = pyramid[scale]
            if i > 0:
                field = upsample_field(field)
                if inverse:
                    backward = upsample_field(backward)
                if self.composing:
                    through = field if self.stride == 1 else upsample_field(field)
                    moving = warp(pair[:, : self.in_channels], through)
                    pair = torch.cat([moving, pair[:, self.in_channels :]], dim=1)
            increment = self._estimate(scale, pair)
            if self.scale_attention is not None:
                increment = self.scale_attention(field, increment)
            if region is not None:
                increment = increment * weights[scale]
            if self.composing:
                increment = self._refine(increment)
                if self.integration_steps > 0:
                    if inverse:
                        backward = compose(self._integrate(-increment), backward)
                    increment = self._integrate(increment)
            field = compose(field, increment) if self.composing and i > 0 else field + increment
        if not self.composing:
            field = self._refine(field)
            if self.integration_steps > 0:
                if inverse:
                    backward = self._integrate(-field)
                field = self._integrate(field)
        for _ in range(self.finest_scale + self.stride - 1):
            field = upsample_field(field)
            if inverse:
                backward = upsample_field(backward)
        return field, backward

    def _estimate(self, scale: int, pair: Tensor) -> Tensor:
        if self.correlation is not None:
            pair = torch.cat([pair, self.correlation(pair)], dim=1)
        field = pair
        for i, estimator in enumerate(self.estimators):
            if i == scale or len(self.estimators) == 1:
                field = estimator(pair)
        return field

    def _refine(self, field: Tensor) -> Tensor:
        return field if self.spatial_attention is None else self.spatial_attention(field)

    def _integrate(self, velocity: Tensor) -> Tensor:
        if self.half_resolution:
            return upsample_field(integrate(0.5 * downsample(velocity), self.integration_steps))
        return integrate(velocity, self.integration_steps)
