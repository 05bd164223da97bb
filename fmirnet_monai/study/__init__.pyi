from .comparison import compare, failed_cases
from .methods import Context, MethodSpec, parse_methods
from .running import Cases
from .study import run_study
from .tuning import trials_table, tune

__all__ = [
    "Cases",
    "Context",
    "MethodSpec",
    "compare",
    "failed_cases",
    "parse_methods",
    "run_study",
    "trials_table",
    "tune",
]
