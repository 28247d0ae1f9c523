"""Small forces evaluated in a process of their own: what `latf-openmm doctor` asks its children.

``python -m latf_openmm.doctor.probes --probe NAME --platform P`` evaluates one small force and writes one line of
JSON, which `latf_openmm.doctor.checks` reads.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import openmm
import torch
from openmm import unit

from latf_openmm.bias import torchscript
from latf_openmm.bias.cv import ModuleCV
from latf_openmm.bias.force import make_force
from latf_openmm.bias.force.bias_energy import BiasEnergy
from latf_openmm.bias.potentials import Bias
from latf_openmm.sampling.contexts import PlatformChoice

BACKENDS = ("compiled", "PythonForce", "TorchForce")
"""What can bias: code that is compiled here, torch called by OpenMM, and torch in the plugin."""


@dataclass(frozen=True)
class Accuracy:
    """Step of the central differences [nm] and the largest relative errors that pass."""

    step: float
    energy: float
    forces: float


# The steps are near the best for numbers of that length; the limits are 20 to 50 times the errors measured
# (for SINGLE: with energies and positions rounded to 32 bits).
DOUBLE = Accuracy(step=1e-4, energy=1e-10, forces=1e-6)
"""Where forces are evaluated in double precision."""
SINGLE = Accuracy(step=3e-3, energy=1e-5, forces=5e-3)
"""Where they are evaluated in single precision."""
ACCURACIES: Mapping[str, Accuracy] = {"Reference": DOUBLE, "CPU": DOUBLE}
"""By platform, SINGLE for all others; CPU evaluates forces of this kind in double precision."""

POSITIONS = np.array([[0.0, 0.0, 0.0], [0.3, 0.1, 0.0], [0.1, 0.4, 0.2], [-0.2, 0.1, 0.5]])
"""Where the probes evaluate [nm]; no symmetry, all distances well above zero."""


class PairEnergy(torch.nn.Module):
    """A small nonlinear energy of four particles: positions (4, 3) [nm] -> scalar [kJ/mol]."""

    first: torch.Tensor
    second: torch.Tensor
    weights: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        first, second = torch.triu_indices(4, 4, offset=1)
        self.register_buffer("first", first)
        self.register_buffer("second", second)
        self.register_buffer("weights", torch.linspace(-1.0, 2.0, 18, dtype=torch.float64).reshape(3, 6))

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        """Evaluate, in double precision whatever the platform passes."""
        x = positions.to(torch.float64)
        distances = (x[self.first] - x[self.second]).square().sum(dim=1).sqrt()
        return 10.0 * torch.tanh(self.weights @ distances).sum()


class PythonEnergy:
    """`PairEnergy` for OpenMM's PythonForce: State -> (energy, forces); top-level, hence picklable."""

    def __init__(self) -> None:
        self.module = PairEnergy()

    def __call__(self, state: Any) -> tuple[float, np.ndarray]:
        """Energy [kJ/mol] and forces (N, 3) [kJ/mol/nm] by automatic differentiation."""
        positions = torch.tensor(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        positions.requires_grad_()
        energy = self.module(positions)
        (gradient,) = torch.autograd.grad(energy, positions)
        return energy.item(), -gradient.numpy()


class Unchanged(Bias):
    """V(z) = z."""

    def energy(self, z: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """Return energies, shape (n,) [kJ/mol]."""
        return z[:, 0]


class PairVariable(torch.nn.Module):
    """`PairEnergy` as a variable, of shape (1,)."""

    def __init__(self) -> None:
        super().__init__()
        self.module = PairEnergy()

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        """Evaluate."""
        return self.module(positions).reshape(1)


def _force(backend: str) -> Any:
    if backend == "compiled":
        cv = ModuleCV(PairVariable(), POSITIONS)
        return make_force(BiasEnergy(cv, Unchanged()), backend="compiled")
    if backend == "PythonForce":
        return openmm.PythonForce(PythonEnergy())
    import openmmtorch

    return openmmtorch.TorchForce(torchscript.script(PairEnergy()))


def _system(backend: str) -> openmm.System:
    system = openmm.System()
    for _ in POSITIONS:
        system.addParticle(1.0)
    system.addForce(_force(backend))
    return system


def _context(system: openmm.System, platform: str) -> openmm.Context:
    return PlatformChoice(platform).context(system)


def _evaluate(context: openmm.Context, positions: np.ndarray) -> tuple[float, np.ndarray]:
    """Energy [kJ/mol] and forces (N, 3) [kJ/mol/nm]."""
    context.setPositions(positions)
    state = context.getState(getEnergy=True, getForces=True)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    return state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole), np.array(forces)


def _numerical_forces(context: openmm.Context, step: float) -> np.ndarray:
    forces = np.zeros_like(POSITIONS)
    for index in np.ndindex(POSITIONS.shape):
        shift = np.zeros_like(POSITIONS)
        shift[index] = step
        above, _ = _evaluate(context, POSITIONS + shift)
        below, _ = _evaluate(context, POSITIONS - shift)
        forces[index] = (below - above) / (2.0 * step)
    return forces


def _energy_error(energy: float) -> float:
    expected = PairEnergy()(torch.tensor(POSITIONS)).item()
    return abs(energy - expected) / abs(expected)


def _probe_forces(backend: str, platform: str) -> dict[str, Any]:
    """Energy against torch, forces against central differences of the energy in the same Context."""
    limit = ACCURACIES.get(platform, SINGLE)
    context = _context(_system(backend), platform)
    energy, forces = _evaluate(context, POSITIONS)
    numerical = _numerical_forces(context, limit.step)
    energy_error = _energy_error(energy)
    force_error = float(np.abs(forces - numerical).max() / np.abs(numerical).max())
    ok = energy_error <= limit.energy and force_error <= limit.forces  # False for NaN
    detail = f"relative errors (limits): energy {energy_error:.1g} ({limit.energy:g}), "
    detail += f"forces {force_error:.1g} ({limit.forces:g})"
    return {"ok": ok, "detail": detail, "energy_error": energy_error, "force_error": force_error}


def _probe_xml(backend: str, platform: str) -> dict[str, Any]:
    """Serialise a System that holds the force, read it back, and evaluate what came back."""
    text = openmm.XmlSerializer.serialize(_system(backend))
    energy, _ = _evaluate(_context(openmm.XmlSerializer.deserialize(text), platform), POSITIONS)
    error = _energy_error(energy)
    limit = ACCURACIES.get(platform, SINGLE).energy
    detail = f"relative error (limit): energy {error:.1g} ({limit:g})"
    return {"ok": error <= limit, "detail": detail, "energy_error": error}


def _probe_machine(_platform: str) -> dict[str, Any]:
    """Report what torch and OpenMM see of this machine."""
    count = openmm.Platform.getNumPlatforms()
    return {
        "ok": True,
        "detail": "",
        "platforms": [openmm.Platform.getPlatform(index).getName() for index in range(count)],
        "failures": list(openmm.Platform.getPluginLoadFailures()),
        "python_force": hasattr(openmm, "PythonForce"),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda,
    }


def _probe_openmmtorch(_platform: str) -> dict[str, Any]:
    """Return whether the module can be imported and a TorchForce made."""
    _force("TorchForce")
    return {"ok": True, "detail": ""}


PROBES: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "machine": _probe_machine,
    "openmmtorch": _probe_openmmtorch,
    **{backend: partial(_probe_forces, backend) for backend in BACKENDS},
    **{f"{backend}-xml": partial(_probe_xml, backend) for backend in BACKENDS},
}
"""What a child can be asked: name -> function of the platform's name."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one probe in this process and write its answer as one line of JSON: the child's side."""
    parser = argparse.ArgumentParser(
        description="One probe of `latf-openmm doctor`, which starts this itself."
    )
    parser.add_argument("--probe", required=True, choices=sorted(PROBES))
    parser.add_argument("--platform", default="Reference")
    options = parser.parse_args(arguments)
    try:
        answer = PROBES[options.probe](options.platform)
    except Exception as error:  # whatever the libraries raise is the answer
        message = " ".join(str(error).split())
        answer = {"ok": False, "detail": f"{type(error).__name__}: {message}"[:400]}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")


if __name__ == "__main__":
    main()
