"""Two images of any size and geometry in, a transform and the warped image out."""

from .base import PairRegistrar
from .method import Method, register
from .optimise import DenseOptimizer
from .parametric import AffineOptimizer, ControlGridOptimizer
from .propagation import Annotation, Blend, Propagation, propagate
from .registrar import OPTIMIZERS, Registrar
from .relabelling import relabel
from .result import Registration
from .transform import Registerd

__all__ = [
    "OPTIMIZERS",
    "AffineOptimizer",
    "Annotation",
    "Blend",
    "ControlGridOptimizer",
    "DenseOptimizer",
    "Method",
    "PairRegistrar",
    "Propagation",
    "Registerd",
    "Registrar",
    "Registration",
    "propagate",
    "register",
    "relabel",
]
