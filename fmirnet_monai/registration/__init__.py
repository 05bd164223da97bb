"""Two images of any size and geometry in, a transform and the warped image out."""

from .base import PairRegistrar
from .optimise import AffineOptimizer, ControlGridOptimizer, DenseOptimizer
from .registrar import Registrar
from .result import Registration
from .transform import Registerd

__all__ = [
    "AffineOptimizer",
    "ControlGridOptimizer",
    "DenseOptimizer",
    "PairRegistrar",
    "Registerd",
    "Registrar",
    "Registration",
]
