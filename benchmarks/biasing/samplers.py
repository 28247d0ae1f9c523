"""Alanine dipeptide at 300 K by each way to sample it: the frames' phi, psi and log weights.

Everybody gets the same system, integrator, time step, pace and number of steps; what is biased and how is the
method's own. Frames before a tenth of the run are not used where the bias is still being built.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import app, unit
from torch import Tensor, nn

import latf_openmm as latf
from latf_openmm.features import build_features
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.md.bias import BiasSettings
from latf_openmm.md.bias.base import AdaptiveBias
from latf_openmm.md.bias.flow_barrier import FlowBarrierSettings
from latf_openmm.md.bias.metadynamics import MetadynamicsSettings
from latf_openmm.md.bias.opes import OpesSettings
from latf_openmm.md.cv import CollectiveVariables, SingleFrameCV
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings

Array = NDArray[np.float64]
SYSTEM = AlanineDipeptideSettings(hydrogen_mass=3.0)
PHI, PSI = (4, 6, 8, 14), (6, 8, 14, 16)
TEMPERATURE, TIMESTEP, FRICTION = 300.0, 0.004, 1.0  # K, ps, 1/ps
PACE, RECORD = 250, 25  # steps
HEIGHT, BIAS_FACTOR, BARRIER = 1.0, 10.0, 40.0  # kJ/mol, -, kJ/mol
KT = SYSTEM.scale.kT(TEMPERATURE)
_SIGMA = 0.25  # rad, of torsions


@dataclass
class Frames:
    """What a run recorded, frame by frame."""

    positions: list[Array] = field(default_factory=list)
    log_weights: list[float] = field(default_factory=list)

    def angles(self) -> Array:
        """Torsions phi and psi [rad], shape (n_frames, 2)."""
        module = build_features([TorsionSettings(atoms=[PHI, PSI])]).double()
        x = module(torch.from_numpy(np.array(self.positions)), torch.empty(0))
        return torch.atan2(x[:, :2], x[:, 2:]).numpy()


Run = Callable[[int, int], Frames]
"""Seed and steps to frames."""


def _context(system: openmm.System, seed: int) -> openmm.Context:
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION, TIMESTEP)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(SYSTEM.build().positions[0])
    context.setVelocitiesToTemperature(TEMPERATURE, seed)
    return context


def _positions(context: openmm.Context) -> Array:
    state = context.getState(positions=True)
    return np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))


def unbiased(seed: int, steps: int) -> Frames:
    context, frames = _context(SYSTEM.build().system, seed), Frames()
    for _ in range(steps // RECORD):
        context.getIntegrator().step(RECORD)
        frames.positions.append(_positions(context))
        frames.log_weights.append(0.0)
    return frames


def ours(model: Path, settings: BiasSettings, backend: str) -> Run:
    def run(seed: int, steps: int) -> Frames:
        trained = latf.load_model(model)
        cv = latf.latent_cv(trained)
        bias = settings.build(latf.bias_context(trained, TEMPERATURE))
        context = _context(latf.add_bias(SYSTEM.build().system, cv, bias, backend=backend), seed)
        updater = latf.BiasUpdater(cv, bias) if isinstance(bias, AdaptiveBias) else None
        frames = Frames()
        for index in range(1, steps // RECORD + 1):
            context.getIntegrator().step(RECORD)
            frames.positions.append(_positions(context))
            with torch.no_grad():
                energy = float(bias(cv(torch.from_numpy(frames.positions[-1])[None], torch.empty(0))))
            offset = bias.offset() if isinstance(bias, AdaptiveBias) else 0.0
            frames.log_weights.append((energy - offset) / KT)
            if updater is not None and index * RECORD % PACE == 0:
                updater.update(context)
        return _after_tenth(frames) if updater is not None else frames

    return run


def _after_tenth(frames: Frames) -> Frames:
    first = len(frames.positions) // 10
    return Frames(frames.positions[first:], frames.log_weights[first:])


def _torsion_variables() -> list[app.BiasVariable]:
    variables = []
    for atoms in (PHI, PSI):
        force = openmm.CustomTorsionForce("theta")
        force.addTorsion(*atoms, [])
        variables.append(app.BiasVariable(force, -np.pi, np.pi, _SIGMA, True, 101))
    return variables


class _Component(nn.Module):
    """One learned variable, as a force of its own wants it."""

    def __init__(self, cv: CollectiveVariables, index: int) -> None:
        super().__init__()
        self.cv = SingleFrameCV(cv)
        self.index = index

    def forward(self, positions: Tensor) -> Tensor:
        return self.cv(positions)[self.index]


def _learned_variables(model: Path) -> list[app.BiasVariable]:
    import openmmtorch

    trained = latf.load_model(model)
    cv, context = latf.latent_cv(trained), latf.bias_context(trained, TEMPERATURE)
    bias = MetadynamicsSettings().build(context)
    low, high = context.region("")
    return [
        app.BiasVariable(
            openmmtorch.TorchForce(torch.jit.script(_Component(cv, i))),
            low[i],
            high[i],
            bias.sigma[i],
            False,
            101,
        )
        for i in range(trained.model.latent_dim)
    ]


def openmm_metadynamics(variables: Callable[[], list[app.BiasVariable]]) -> Run:
    """`openmm.app.Metadynamics`, its frames weighted by the last bias."""

    def run(seed: int, steps: int) -> Frames:
        system = SYSTEM.build().system
        sampler = app.Metadynamics(system, variables(), TEMPERATURE, BIAS_FACTOR, HEIGHT, PACE)
        simulation = _simulation(system, seed)
        frames, values = Frames(), []
        for _ in range(steps // RECORD):
            sampler.step(simulation, RECORD)
            frames.positions.append(_positions(simulation.context))
            values.append(sampler.getCollectiveVariables(simulation))
        axes = [np.linspace(v.minValue, v.maxValue, v.gridWidth) for v in sampler.variables]
        grid = (
            -sampler.getFreeEnergy().value_in_unit(unit.kilojoule_per_mole) * (BIAS_FACTOR - 1) / BIAS_FACTOR
        )
        frames.log_weights = list(_interpolate(axes, grid.T, np.array(values, dtype=float)) / KT)
        return _after_tenth(frames)

    return run


def openmm_opes(seed: int, steps: int) -> Frames:
    """openmm-opes on phi and psi, frames weighted by exp(V/kT) at their time."""
    from openmm_opes import OPES

    system = SYSTEM.build().system
    sampler = OPES(
        system,
        _torsion_variables(),
        temperature=TEMPERATURE * unit.kelvin,
        barrier=BARRIER * unit.kilojoules_per_mole,
        frequency=PACE,
        varianceFrequency=None,
    )
    simulation, frames = _simulation(system, seed), Frames()
    for _ in range(steps // RECORD):
        # Its step ends with the update, so the bias is taken before the last step of each stretch.
        sampler.step(simulation, RECORD)
        frames.positions.append(_positions(simulation.context))
        energy = sampler.getBiasEnergy(simulation.context).value_in_unit(unit.kilojoule_per_mole)
        frames.log_weights.append(energy / KT)
    return _after_tenth(frames)


def _simulation(system: openmm.System, seed: int) -> app.Simulation:
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION, TIMESTEP)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(SYSTEM.build().topology, system, integrator, platform)
    simulation.context.setPositions(SYSTEM.build().positions[0])
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    return simulation


def _interpolate(axes: list[Array], grid: Array, points: Array) -> Array:
    from scipy.interpolate import RegularGridInterpolator

    inside = np.stack([np.clip(p, a[0], a[-1]) for p, a in zip(points.T, axes, strict=True)], axis=1)
    return np.asarray(RegularGridInterpolator(axes, grid)(inside))


def all_methods(model: Path) -> dict[str, Run]:
    """Every way of the table, by name."""
    metadynamics = MetadynamicsSettings(height=HEIGHT, bias_factor=BIAS_FACTOR, pace=PACE)
    opes: dict[str, Any] = {"barrier": BARRIER, "pace": PACE}
    return {
        "unbiased": unbiased,
        "latf metadynamics, learned": ours(model, metadynamics, "auto"),
        "latf OPES, learned": ours(model, OpesSettings(**opes), "auto"),
        "latf OPES explore, learned": ours(model, OpesSettings(flavour="explore", **opes), "auto"),
        "latf flow barrier, learned": ours(model, FlowBarrierSettings(barrier_kt=8.0), "auto"),
        "openmm.app Metadynamics, phi psi": openmm_metadynamics(_torsion_variables),
        "openmm.app Metadynamics, learned": openmm_metadynamics(lambda: _learned_variables(model)),
        "openmm-opes, phi psi": openmm_opes,
    }
