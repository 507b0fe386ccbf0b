"""The report of a run: one HTML page that needs no other file and no network."""

from ktfast.report.report import write_report

__all__ = ["write_report"]
