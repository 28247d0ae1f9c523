"""Whether the folder of a run is whole: what `latf-openmm verify` does. Nothing is written or changed."""

from latf_openmm.run.verify.findings import Findings, Report
from latf_openmm.run.verify.run import render, verify_run

__all__ = ["Findings", "Report", "render", "verify_run"]
