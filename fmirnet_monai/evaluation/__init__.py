"""From measured cases to tables, figures and reports."""

from .figures import draw_pairs
from .page import write_report
from .report import RegistrationReport
from .table import before_and_after, markdown_table, summarise, write_tables

__all__ = [
    "RegistrationReport",
    "before_and_after",
    "draw_pairs",
    "markdown_table",
    "summarise",
    "write_report",
    "write_tables",
]
