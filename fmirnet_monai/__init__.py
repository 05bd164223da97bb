"""FMIRNet: fast multiscale unsupervised deformable image registration, on MONAI.

The package's face: each name is imported when it is first asked for (SPEC 1), so importing the package alone loads
neither torch nor monai. Type checkers read the same names in ``__init__.pyi``.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("fmirnet_monai")
except PackageNotFoundError:  # used from a folder that is not installed, as in a self-contained bundle
    __version__ = "unknown"

HOMES = {
    "Affine": "spatial",
    "Chain": "spatial",
    "DisplacementField": "spatial",
    "Grid": "spatial",
    "Method": "registration",
    "Registerd": "registration",
    "Registrar": "registration",
    "Registration": "registration",
    "read_image": "data",
    "read_label": "data",
    "register": "registration",
    "resample": "spatial",
    "write_image": "data",
}
__all__ = list(HOMES)


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
