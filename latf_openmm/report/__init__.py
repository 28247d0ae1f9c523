"""The report of a run: one HTML page with its pictures and structures, and the status lines of the command line."""

from latf_openmm.report.lag_scan import write_lag_scan
from latf_openmm.report.page import write_report
from latf_openmm.report.status import next_command, status_lines
from latf_openmm.report.watch import watch_run

__all__ = ["next_command", "status_lines", "watch_run", "write_lag_scan", "write_report"]
