"""From measured cases to tables, figures and reports."""

from .figures import draw_pairs
from .report import RegistrationReport
from .table import markdown_table, summarise, write_tables

__all__ = ["RegistrationReport", "draw_pairs", "markdown_table", "summarise", "write_tables"]
