"""Configurations for a GPU, as they are but for the platform, to the end of their first segment on the CPU."""

from pathlib import Path

import pytest
import yaml

from latf_openmm.frames.walkers import read_stage
from latf_openmm.run.config import load_config
from latf_openmm.run.steps import simulate_stage
from latf_openmm.systems import library_folder

FRAMES, STEPS = 10, 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chignolin", "rna_tetraloop"])
def test_a_configuration_for_a_gpu_starts_on_the_cpu(name: str, tmp_path: Path) -> None:
    data = yaml.safe_load((library_folder(name) / "gpu.yaml").read_text())
    simulation = data["simulation"]
    assert simulation["platform"] == "CUDA"
    simulation |= {
        "platform": "CPU",
        "temperatures": simulation["temperatures"][:2],
        "walkers": 1,
        "processes": 1,
        "frames": FRAMES,
        "frame_interval": STEPS,
        "equilibration": STEPS,
    }
    file = tmp_path / "gpu.yaml"
    file.write_text(yaml.safe_dump(data))
    simulate_stage(load_config(file), tmp_path / "stage")
    walkers = read_stage(tmp_path / "stage")
    assert [len(walker.energies()) for walker in walkers] == [FRAMES] * 2
