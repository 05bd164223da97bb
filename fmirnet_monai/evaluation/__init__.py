"""From measured cases to tables, figures and reports."""

from .comparison import Cases, compare
from .figures import draw_comparison, draw_pairs, draw_segmentations
from .methods import Context, MethodSpec, parse_methods
from .page import write_report
from .report import RegistrationReport, SegmentationReport
from .study import run_study
from .table import before_and_after, markdown_table, summarise, write_tables
from .tuning import trials_table, tune

__all__ = [
    "Cases",
    "Context",
    "MethodSpec",
    "RegistrationReport",
    "SegmentationReport",
    "before_and_after",
    "compare",
    "draw_comparison",
    "draw_pairs",
    "draw_segmentations",
    "markdown_table",
    "parse_methods",
    "run_study",
    "summarise",
    "trials_table",
    "tune",
    "write_report",
    "write_tables",
]
