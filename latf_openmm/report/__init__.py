"""The report of a run: one HTML page with its pictures and structures, and the status lines of the command line."""

from latf_openmm.report.lag_scan import write_lag_scan
from latf_openmm.report.page import write_report
from latf_openmm.report.status import status_lines

__all__ = ["status_lines", "write_lag_scan", "write_report"]
