"""The similarities that an optimiser can be asked for by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from .lncc import LocalNCCLoss
from .masked import MSELoss
from .mind import MINDSSCLoss
from .registration import RegistrationLoss
from .ssim import SSIMLoss

Builder = Callable[[int], nn.Module]


def _auto(spatial_dims: int) -> RegistrationLoss:
    if spatial_dims == 2:
        return RegistrationLoss({"mse": MSELoss(), "local": SSIMLoss()}, weights={"local": 0.1})
    return RegistrationLoss({"local": LocalNCCLoss(kernel_size=5)})


def _mutual_information(spatial_dims: int) -> nn.Module:
    from .mutual_information import MutualInformationLoss  # MONAI's, which takes seconds to load

    return MutualInformationLoss()


# for images of different modalities
MULTIMODAL: dict[str, Builder] = {
    "mi": _mutual_information,
    "mind": lambda spatial_dims: MINDSSCLoss(),
}

# called with the number of spatial dimensions, 2 or 3, each gives a loss ``(prediction, target, mask=None)`` of two
# images ``(B, C, *spatial)``, except for "auto": a registration loss, whose ``dissimilarity`` is called so
SIMILARITIES: dict[str, Builder] = {
    "auto": _auto,  # mean squares and SSIM in 2-D, local NCC in 3-D: what won on validation pairs
    "mse": lambda spatial_dims: MSELoss(),
    "ssim": lambda spatial_dims: SSIMLoss(),
    "lncc": lambda spatial_dims: LocalNCCLoss(kernel_size=9),
    **MULTIMODAL,
}
