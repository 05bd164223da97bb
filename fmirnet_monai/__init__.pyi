from .data import read_image, read_label, write_image
from .registration import Method, Registerd, Registrar, Registration
from .spatial import DisplacementField, Grid

__version__: str
HOMES: dict[str, str]
__all__ = [
    "DisplacementField",
    "Grid",
    "Method",
    "Registerd",
    "Registrar",
    "Registration",
    "read_image",
    "read_label",
    "write_image",
]
