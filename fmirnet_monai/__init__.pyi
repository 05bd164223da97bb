from .data import read_image, read_label, write_image
from .registration import Method, Registerd, Registrar, Registration, register
from .spatial import Affine, Chain, DisplacementField, Grid, resample

__version__: str
HOMES: dict[str, str]
__all__ = [
    "Affine",
    "Chain",
    "DisplacementField",
    "Grid",
    "Method",
    "Registerd",
    "Registrar",
    "Registration",
    "read_image",
    "read_label",
    "register",
    "resample",
    "write_image",
]
