"""The similarities that an optimiser can be asked for by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from .lncc import LocalNCCLoss
from .masked import MSELoss
from .mind import MINDSSCLoss
from .mutual_information import MutualInformationLoss
from .registration import RegistrationLoss
from .ssim import SSIMLoss

Builder = Callable[[int], nn.Module]


def _auto(spatial_dims: int) -> RegistrationLoss:
    local = SSIMLoss() if spatial_dims == 2 else LocalNCCLoss(kernel_size=5)
    return RegistrationLoss({"mse": MSELoss(), "local": local}, weights={"local": 0.1})


# for images of different modalities
MULTIMODAL: dict[str, Builder] = {
    "mi": lambda spatial_dims: MutualInformationLoss(),
    "mind": lambda spatial_dims: MINDSSCLoss(),
}

# called with the number of spatial dimensions, 2 or 3, each gives a loss ``(prediction, target, mask=None)`` of two
# images ``(B, C, *spatial)``, except for "auto": a registration loss, whose ``dissimilarity`` is called so
SIMILARITIES: dict[str, Builder] = {
    "auto": _auto,  # mean squares and a local similarity, SSIM in 2-D and local NCC in 3-D
    "mse": lambda spatial_dims: MSELoss(),
    "ssim": lambda spatial_dims: SSIMLoss(),
    "lncc": lambda spatial_dims: LocalNCCLoss(kernel_size=9),
    **MULTIMODAL,
}
