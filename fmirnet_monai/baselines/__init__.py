"""The classical methods that a learned one has to beat, behind the Registrar's interface."""

from .ants import SynRegistrar, TimeVaryingRegistrar
from .base import ClassicalRegistrar
from .demons import DemonsRegistrar
from .elastix import ElastixRegistrar
from .identity import IdentityRegistrar

__all__ = [
    "ClassicalRegistrar",
    "DemonsRegistrar",
    "ElastixRegistrar",
    "IdentityRegistrar",
    "SynRegistrar",
    "TimeVaryingRegistrar",
]
