"""The classical methods that a learned one has to beat, behind the Registrar's interface."""

from .ants import SynRegistrar, TimeVaryingRegistrar
from .base import ClassicalRegistrar
from .convexadam import ConvexAdamRegistrar
from .demons import DemonsRegistrar, LCCDemonsRegistrar
from .elastix import ElastixRegistrar
from .greedy import GreedyRegistrar
from .identity import IdentityRegistrar

__all__ = [
    "ClassicalRegistrar",
    "ConvexAdamRegistrar",
    "DemonsRegistrar",
    "ElastixRegistrar",
    "GreedyRegistrar",
    "IdentityRegistrar",
    "LCCDemonsRegistrar",
    "SynRegistrar",
    "TimeVaryingRegistrar",
]
