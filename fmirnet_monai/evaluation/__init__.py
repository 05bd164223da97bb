"""From measured cases to tables, figures and reports."""

from .comparison import Cases, compare
from .figures import draw_comparison, draw_pairs, draw_segmentations
from .methods import Context, MethodSpec, parse_methods
from .page import write_report
from .profile import PREDICTION, TRAINING, Workload, profile_table
from .report import RegistrationReport, SegmentationReport
from .study import run_study
from .table import before_and_after, markdown_table, summarise, write_tables
from .tuning import trials_table, tune

__all__ = [
    "PREDICTION",
    "TRAINING",
    "Cases",
    "Context",
    "MethodSpec",
    "RegistrationReport",
    "SegmentationReport",
    "Workload",
    "before_and_after",
    "compare",
    "draw_comparison",
    "draw_pairs",
    "draw_segmentations",
    "markdown_table",
    "parse_methods",
    "profile_table",
    "run_study",
    "summarise",
    "trials_table",
    "tune",
    "write_report",
    "write_tables",
]
