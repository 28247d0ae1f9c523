"""What a cluster sees: no progress bars, and logs that a program can read."""

import json
import subprocess
import sys
from pathlib import Path

from conftest import small_config

from latf_openmm.run.config import dump_config


def test_quiet_and_json(tmp_path: Path) -> None:
    file = tmp_path / "loop.yaml"
    config = small_config()
    file.write_text(
        dump_config(
            config.model_copy(
                update={
                    "loop": config.loop.model_copy(update={"rounds": 1}),
                    "generate": config.generate.model_copy(update={"temperatures": []}),
                    "validation": None,
                }
            )
        )
    )
    command = [sys.executable, "-m", "latf_openmm.cli", "-q", "-v", "--log", "json", "run", str(file), "-o"]
    done = subprocess.run([*command, str(tmp_path / "run")], capture_output=True, text=True, check=True)
    assert "1 of 1 rounds complete" in done.stdout
    assert "━" not in done.stdout
    records = [json.loads(line) for line in done.stderr.splitlines()]
    assert records[0]["message"] == "round 0: start"
    assert {"time", "level", "logger", "message"} == set(records[0])
    assert any(record["logger"] == "latf_openmm.training.states" for record in records)
