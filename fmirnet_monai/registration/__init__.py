"""Two images of any size and geometry in, a transform and the warped image out."""

from .optimise import AffineOptimizer, ControlGridOptimizer, DenseOptimizer
from .registrar import Registrar
from .result import Registration
from .transform import Registerd

__all__ = ["AffineOptimizer", "ControlGridOptimizer", "DenseOptimizer", "Registerd", "Registrar", "Registration"]
