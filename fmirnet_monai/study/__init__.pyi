from .comparison import Cases, compare
from .methods import Context, MethodSpec, parse_methods
from .study import run_study
from .tuning import trials_table, tune

__all__ = [
    "Cases",
    "Context",
    "MethodSpec",
    "compare",
    "parse_methods",
    "run_study",
    "trials_table",
    "tune",
]
