"""The report of a run: one HTML page that needs nothing but itself."""

from ktfast.report.report import write_report

__all__ = ["write_report"]
