"""A run that is as small as can be, for tests of what happens to a finished one; never change it: copy it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from latf_openmm.bias.force import torchforce
from latf_openmm.report.page import write_report
from latf_openmm.run.config import RunConfig
from latf_openmm.run.folder import RunFolder
from latf_openmm.run.loop import run_loop
from latf_openmm.settings import validate
from latf_openmm.systems import library_folder

os.environ.setdefault("LATF_OPENMM_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "compiled"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is done with TorchForce where its plugin is not installed."""
    if torchforce.why_unavailable() is None:
        return
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
        names = [value for value in parameters if isinstance(value, str)]
        if item.get_closest_marker("torchforce") or any(name.startswith("torchforce") for name in names):
            item.add_marker(pytest.mark.skip(reason="TorchForce's plugin is not installed"))


SMALL_TRAINING = {
    "initial_states": 5,
    "epochs_states": 3,
    "epochs_joint": 1,
    "epochs_flow": 1,
    "refinements": 1,
    "restarts": 1,
    "committee": 2,
    "lag": 2,
    "pairs_per_epoch": 500,
}
"""The section `training` of a test that does not ask how good the model is."""


def small_config() -> RunConfig:
    """Three walkers of two segments and a bit at each of two temperatures; two rounds, the second biased."""
    data = yaml.safe_load((library_folder("three_hole") / "fast.yaml").read_text())
    data["simulation"] |= {
        "walkers": 3,
        "frames": 60,
        "segment_frames": 25,
        "equilibration": 50,
        "energy_interval": 5,
    }
    data["training"] |= SMALL_TRAINING
    data["model"]["flow"] = {"layers": 2}
    data["bias"] = {"kind": "opes", "barrier": 3.0, "pace": 20}  # has a state that is kept
    data |= {"generate": {"samples": 200}, "validation": {"temperatures": [1.0], "frames": 20}}
    return validate(RunConfig, data, "small")


@pytest.fixture(scope="session", autouse=True)
def consents_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests agree to run is not noted in the home of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    torch.set_num_threads(1)
    return run_loop(small_config(), tmp_path_factory.mktemp("small") / "run")


@pytest.fixture(scope="session")
def reported_run(small_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The small run with a report."""
    path = tmp_path_factory.mktemp("reported") / "run"
    shutil.copytree(small_run.path, path)
    run = RunFolder.open(path)
    write_report(run, 1)
    return run


@pytest.fixture
def small_config_file(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(small_config().model_dump(mode="json")))
    return file
