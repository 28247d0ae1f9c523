"""What a scan over lag times leaves on disk."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from latf_openmm.report import figures as plots
from latf_openmm.report.pictures import save
from latf_openmm.storage import atomic_folder, write_json
from latf_openmm.training.kept_lags import forget_lags
from latf_openmm.training.lag_scan import LagScan


def write_lag_scan(scan: LagScan, folder: Path) -> None:
    """Write ``lag_scan.json``, ``lag_scan.parquet`` and ``lag_scan.png`` into a new folder.

    The lags that were kept while the scan went on are removed.
    """
    with atomic_folder(folder) as temporary:
        write_json(temporary / "lag_scan.json", asdict(scan))
        rows = pd.DataFrame([asdict(row) for row in scan.rows])
        rows.to_parquet(temporary / "lag_scan.parquet", index=False)
        save(plots.lag_scan(scan), temporary / "lag_scan.png")
    forget_lags(folder)
