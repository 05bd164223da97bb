"""Two images of any size and geometry in, a transform and the warped image out."""

from .base import PairRegistrar
from .method import Method
from .optimise import AffineOptimizer, ControlGridOptimizer, DenseOptimizer
from .propagate import Annotation, Propagation, propagate
from .registrar import Registrar
from .result import Registration
from .transform import Registerd

__all__ = [
    "AffineOptimizer",
    "Annotation",
    "ControlGridOptimizer",
    "DenseOptimizer",
    "Method",
    "PairRegistrar",
    "Propagation",
    "Registerd",
    "Registrar",
    "Registration",
    "propagate",
]
