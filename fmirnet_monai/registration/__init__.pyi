from .affine_optimizer import AffineOptimizer
from .base import PairRegistrar
from .guidance import Guidance, load_extractor
from .method import Method, register
from .optimise import DenseOptimizer
from .propagation import Annotation, Blend, Propagation, propagate
from .registrar import OPTIMIZERS, STARTS, Registrar
from .relabelling import relabel
from .result import Registration
from .search import DiscreteSearch
from .series import SeriesRegistration, register_series
from .transform import Registerd
from .verdict import GRADES, Verdict

__all__ = [
    "GRADES",
    "OPTIMIZERS",
    "STARTS",
    "AffineOptimizer",
    "Annotation",
    "Blend",
    "DenseOptimizer",
    "DiscreteSearch",
    "Guidance",
    "Method",
    "PairRegistrar",
    "Propagation",
    "Registerd",
    "Registrar",
    "Registration",
    "SeriesRegistration",
    "Verdict",
    "load_extractor",
    "propagate",
    "register",
    "register_series",
    "relabel",
]
