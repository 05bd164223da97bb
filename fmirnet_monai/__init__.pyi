from . import bundle, data, export, profile, registration, report, series_files, spatial, study, utils, workflow, zoo
from .data import read_image, read_label, write_image
from .registration import Method, Registerd, Registrar, Registration, register
from .spatial import Affine, Chain, DisplacementField, Grid, resample
from .version import __version__

__all__ = [
    "Affine",
    "Chain",
    "DisplacementField",
    "Grid",
    "Method",
    "Registerd",
    "Registrar",
    "Registration",
    "__version__",
    "bundle",
    "data",
    "export",
    "profile",
    "read_image",
    "read_label",
    "register",
    "registration",
    "report",
    "resample",
    "series_files",
    "spatial",
    "study",
    "utils",
    "workflow",
    "write_image",
    "zoo",
]
