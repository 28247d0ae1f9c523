import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from latf_openmm.doctor import checks as doctor, probes
from latf_openmm.doctor.checks import ProbeResult
from latf_openmm.doctor.findings import Check, DoctorReport, render
from latf_openmm.doctor.versions import (
    FIT_OPENMM,
    FIT_TORCH,
    GET_OPENMM,
    GET_TORCH,
    GET_TORCHFORCE,
    TORCHFORCE_WHEELS,
    Versions,
    installed_versions,
    known_problems,
)

CPU_WHEEL = ("acellera-openmmtorch-cpu", "1.10")
GOOD = {
    "python": "3.11.7",
    "latf_openmm": "0.1.0",
    "torch": "2.12.1",
    "openmm": "8.5.2",
    "mdtraj": "1.11.1.post2",
    "numpy": "2.4.6",
    "llvmlite": "0.50.0",
    "torchforce_wheels": (CPU_WHEEL,),
}


@pytest.fixture(scope="module")
def report():
    return doctor.run_doctor()


def by_name(report):
    return {check.name: check for check in report.checks}


def rendered(report, width=100):
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    render(report, console)
    return console.export_text()


# The whole thing on this machine


def test_everything_works_on_this_machine(report):
    plugin = bool(installed_versions().torchforce_wheels)
    for backend in [name for name in doctor.BACKENDS if plugin or name != "TorchForce"]:
        for platform in ("Reference", "CPU"):
            assert (backend, platform) in report.usable
            assert by_name(report)[f"{backend} on {platform}"].status == "ok"
        assert by_name(report)[f"{backend} XML round trip"].status == "ok"
    assert report.problems == ()
    assert report.can_bias
    assert report.exit_code == 0


def test_report_names_versions_and_platforms(report):
    checks = by_name(report)
    assert checks["torch"].detail.startswith("2.")
    assert checks["openmm"].detail.startswith("8.")
    assert checks["TorchForce wheel"].detail.startswith(("acellera-openmmtorch-", "not installed"))
    assert {"Reference", "CPU"} <= set(checks["OpenMM platforms"].detail.split(", "))
    assert "torch built for CUDA" in checks["torch CUDA"].detail
    assert "OpenMM plugins" in checks


def test_render_shows_every_check_and_ends_with_the_verdict(report):
    text = rendered(report)
    for check in report.checks:
        assert check.name in text
    assert text.rstrip().splitlines()[-1] == report.verdict


@pytest.mark.slow
@pytest.mark.torchforce
def test_without_openmmtorch_others_still_bias(tmp_path, monkeypatch):
    (tmp_path / "openmmtorch.py").write_text("raise ImportError('libcudart.so.12: cannot open')\n")
    monkeypatch.syspath_prepend(tmp_path)
    report = doctor.run_doctor()
    torchforce = by_name(report)["TorchForce"]
    assert torchforce.status == "warning"
    assert "libcudart.so.12" in torchforce.detail
    assert "latf-openmm[torchforce-cpu]" in torchforce.way_out
    assert {backend for backend, _ in report.usable} == {"compiled", "PythonForce"}
    assert by_name(report)["PythonForce on CPU"].status == "ok"
    assert report.exit_code == 0
    assert "TorchForce is not usable" in report.verdict
    assert '"latf-openmm[torchforce-cpu]"' in rendered(report)  # rich would swallow [...] as markup


# Known problems


def test_good_versions_have_no_problem():
    assert known_problems(Versions(**GOOD)) == []


@pytest.mark.parametrize(
    ("change", "name", "way_out"),
    [
        ({"torch": "2.13.0"}, "torch >= 2.13 with TorchForce", '"torch>=2.10,<2.13"'),
        ({"torch": "2.13.0.dev20260601+cpu"}, "torch >= 2.13 with TorchForce", '"torch>=2.10,<2.13"'),
        ({"torch": "3.0.0"}, "torch >= 2.13 with TorchForce", '"torch>=2.10,<2.13"'),
        ({"torch": "2.9.1+cu126"}, "torch < 2.10", '"torch>=2.10"'),
        ({"openmm": "8.6.0"}, "openmm >= 8.6 with TorchForce", '"openmm>=8.5,<8.6"'),
        ({"openmm": "8.4.0"}, "openmm < 8.5", '"openmm>=8.5"'),
        ({"openmm": None}, "a required package is missing", "pip install latf-openmm"),
        ({"llvmlite": None}, "a required package is missing", "pip install latf-openmm"),
        (
            {"torchforce_wheels": (("openmmtorch", "1.5"),)},
            "the official openmmtorch wheel",
            '"latf-openmm[torchforce-cpu]"',
        ),
        (
            {"torchforce_wheels": (CPU_WHEEL, ("acellera-openmmtorch-cu13", "1.10"))},
            "several TorchForce wheels",
            "pip uninstall",
        ),
    ],
)
def test_bad_combination_is_named_with_its_way_out(change, name, way_out):
    [problem] = known_problems(Versions(**{**GOOD, **change}))
    assert problem.name == name
    assert problem.detail
    assert way_out in problem.way_out


def test_several_problems_are_all_named():
    wheels = (("openmmtorch", "1.5"), CPU_WHEEL)
    problems = known_problems(
        Versions(**{**GOOD, "torch": "2.14", "openmm": "8.6", "torchforce_wheels": wheels})
    )
    assert len(problems) == 4


def test_without_the_plugin_new_versions_are_no_problem():
    assert (
        known_problems(Versions(**{**GOOD, "torch": "2.15.0", "openmm": "8.6.1", "torchforce_wheels": ()}))
        == []
    )


def test_ways_out_agree_with_the_pins_of_the_project():
    pins = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for way_out in (GET_TORCH, GET_OPENMM, FIT_TORCH, FIT_OPENMM):
        assert way_out.removeprefix("pip install ") in pins
    for wheel in TORCHFORCE_WHEELS[:-1]:
        assert wheel in pins


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        ("/x/libOpenMMTorchOpenCL.so: libOpenCL.so.1: cannot open shared object file", "ok"),
        ("/x/libOpenMMAmoebaOpenCL.so: libOpenMMOpenCL.so: cannot open shared object file", "ok"),
        ("/x/libOpenMMTorchReference.so: libtorch.so: cannot open shared object file", "warning"),
        ("/x/libOpenMMTorchCPU.so: /x/libOpenMMTorchCPU.so: undefined symbol: _ZN3c105ErrorC2E", "warning"),
    ],
)
def test_plugin_failures_for_want_of_torch_are_told_from_missing_drivers(failure, status):
    check = doctor.plugin_check([f"Error loading library {failure}"])
    assert check.status == status
    assert ("before openmm" in check.way_out) == (status == "warning")


def test_gpu_without_cuda_platform_is_a_warning():
    data = {"gpu": "NVIDIA H100", "cuda": "13.0", "platforms": ["Reference", "CPU"], "failures": []}
    checks = {check.name: check for check in doctor._machine_checks(ProbeResult(True, "", data))}
    assert checks["OpenMM platforms"].status == "warning"
    assert "latf-openmm[cuda13]" in checks["OpenMM platforms"].way_out


# Children that do not answer


def child(monkeypatch, code):
    monkeypatch.setattr(doctor, "probe_command", lambda *_: [sys.executable, "-c", code])


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("raise SystemExit('no such thing')", "exit code 1: no such thing"),
        ("print('hello')", "no readable answer: hello"),
        ("print('[1, 2]')", "no readable answer"),
        ("pass", "no readable answer"),
        ('import os; print(\'{"ok": true, "detail": ""}\', flush=True); os.abort()', "SIGABRT at exit"),
    ],
)
def test_death_of_a_child_is_reported(monkeypatch, code, told):
    child(monkeypatch, code)
    result = doctor.run_probe("machine")
    assert not result.ok
    assert told in result.detail


def test_hanging_child_is_killed_and_reported(monkeypatch):
    child(monkeypatch, "import time; time.sleep(60)")
    result = doctor.run_probe("machine", timeout=0.5)
    assert not result.ok
    assert "no answer within 0.5 s" in result.detail


def test_child_that_cannot_be_started_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    assert "could not be started" in doctor.run_probe("machine").detail


def test_answer_after_the_chatter_of_libraries_is_read(monkeypatch):
    child(monkeypatch, 'print("Warning: chatter"); print(\'{"ok": true, "detail": "fine", "n": 3}\')')
    assert doctor.run_probe("machine") == ProbeResult(True, "fine", {"ok": True, "detail": "fine", "n": 3})


def test_when_every_child_crashes_the_doctor_says_so(monkeypatch):
    child(monkeypatch, "import os; os.abort()")
    monkeypatch.setattr(doctor, "installed_versions", lambda: Versions(**GOOD))
    report = doctor.run_doctor()
    assert not report.can_bias
    assert report.exit_code == 1
    assert by_name(report)["PythonForce on CPU"].status == "failed"
    assert "SIGABRT" in by_name(report)["PythonForce on CPU"].detail
    assert by_name(report)["TorchForce"].status == "failed"


# The verdict


def answers(monkeypatch, failing):
    """Let every probe answer well, but for those in `failing`; the machine has a CUDA platform."""
    machine = {"gpu": "H100", "cuda": "13.0", "platforms": ["Reference", "CPU", "CUDA"], "failures": []}

    def run_probe(name, platform="Reference", *, timeout=60.0):
        data = {**machine, "python_force": "PythonForce" not in failing} if name == "machine" else {}
        return ProbeResult(not {name, f"{name} on {platform}"} & set(failing), "as told", data)

    monkeypatch.setattr(doctor, "run_probe", run_probe)
    monkeypatch.setattr(doctor, "installed_versions", lambda: Versions(**GOOD))


def test_broken_cuda_is_a_warning_when_another_platform_passes(monkeypatch):
    answers(monkeypatch, ["TorchForce on CUDA"])
    report = doctor.run_doctor()
    assert by_name(report)["TorchForce on CUDA"].status == "warning"
    assert "latf-openmm[cuda13]" in by_name(report)["TorchForce on CUDA"].way_out
    assert report.verdict == (
        "Biasing works: compiled on Reference, CPU, CUDA; PythonForce on Reference, CPU, CUDA; "
        "TorchForce on Reference, CPU."
    )


def test_backend_that_crashes_when_serialised_is_not_usable(monkeypatch):
    answers(monkeypatch, ["TorchForce-xml"])
    report = doctor.run_doctor()
    assert by_name(report)["TorchForce XML round trip"].status == "failed"
    assert by_name(report)["TorchForce on CPU"].status == "ok"
    assert {backend for backend, _ in report.usable} == {"compiled", "PythonForce"}
    assert report.exit_code == 0


def test_openmm_without_pythonforce_is_a_warning(monkeypatch):
    answers(monkeypatch, ["PythonForce"])
    report = doctor.run_doctor()
    assert by_name(report)["PythonForce"].status == "warning"
    assert "openmm>=8.5" in by_name(report)["PythonForce"].way_out
    assert report.exit_code == 0


def test_no_backend_gives_exit_code_1_and_a_clear_verdict(monkeypatch):
    answers(monkeypatch, ["openmmtorch", "PythonForce"])
    report = doctor.run_doctor()
    assert not report.can_bias
    assert report.exit_code == 1
    assert by_name(report)["TorchForce"].status == "failed"
    last = rendered(report, width=60).rstrip().splitlines()[-1]
    assert last == report.verdict
    assert last.startswith("Biasing does not work here")
    assert GET_TORCHFORCE in last


def test_verdict_starts_with_the_known_problem():
    problem = Check("torch >= 2.13", "warning", "every evaluation fails", GET_TORCH)
    check = Check("TorchForce", "failed", "no", "something else")
    assert GET_TORCH in DoctorReport((check,), (problem,)).verdict


# The probes themselves: a wrong force must not pass


class HalfForces(probes.PythonEnergy):
    def __call__(self, state):
        energy, forces = super().__call__(state)
        return energy, 0.5 * forces


class SlightlyWrongForces(probes.PythonEnergy):
    def __call__(self, state):
        energy, forces = super().__call__(state)
        return energy, forces * np.where(np.arange(12) == 7, 1.0001, 1.0).reshape(4, 3)


class ShiftedEnergy(probes.PythonEnergy):
    def __call__(self, state):
        energy, forces = super().__call__(state)
        return energy + 1e-6, forces


class NotANumber(probes.PythonEnergy):
    def __call__(self, state):
        _, forces = super().__call__(state)
        return float("nan"), forces


@pytest.mark.parametrize("wrong", [HalfForces, SlightlyWrongForces, ShiftedEnergy, NotANumber])
@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_probe_refuses_a_wrong_force(monkeypatch, wrong, platform):
    monkeypatch.setattr(probes, "PythonEnergy", wrong)
    assert not probes._probe_forces("PythonForce", platform)["ok"]


def test_exception_in_a_probe_is_its_answer(capsys):
    probes.main(["--probe", "PythonForce", "--platform", "Abacus"])
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["ok"] is False
    assert "Abacus" in answer["detail"]


@pytest.mark.torchforce
def test_module_can_be_run_as_a_child():
    command = doctor.probe_command("openmmtorch", "Reference")
    done = subprocess.run(command, env=doctor._environment(), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["ok"] is True
