"""Alanine dipeptide at 300 K by each way to sample it: the frames' phi, psi and log weights.

Everybody gets the same system, integrator, time step, pace and number of steps; what is biased and how is the
method's own.
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
from latf_openmm.bias.cv import CollectiveVariables, SingleFrameCV
from latf_openmm.bias.force.base import BackendName
from latf_openmm.bias.potentials import Bias, BiasSettings
from latf_openmm.bias.potentials.base import AdaptiveBias
from latf_openmm.bias.potentials.flow_barrier import FlowBarrierSettings
from latf_openmm.bias.potentials.metadynamics import MetadynamicsSettings
from latf_openmm.bias.potentials.opes import OpesSettings
from latf_openmm.features import build_features
from latf_openmm.features.torsions import TorsionSettings
from latf_openmm.systems.alanine_dipeptide import AlanineDipeptideSettings

Array = NDArray[np.float64]
SYSTEM = AlanineDipeptideSettings(hydrogen_mass=3.0)
PHI, PSI = (4, 6, 8, 14), (6, 8, 14, 16)
TEMPERATURE, TIMESTEP, FRICTION = 300.0, 0.004, 1.0  # K, ps, 1/ps
PACE, RECORD = 250, 25  # steps
HEIGHT, BIAS_FACTOR, BARRIER = 1.0, 10.0, 40.0  # kJ/mol, -, kJ/mol
KT = SYSTEM.scale.kT(TEMPERATURE)
_SIGMA = 0.25  # rad, of torsions


PARTS = 10
"""Moments at which a run is looked at, evenly spaced."""


@dataclass
class Frames:
    """What a run recorded, frame by frame.

    Attributes
    ----------
    positions
        Of each frame [nm].
    log_weights
        Of each frame, where its weight was known at its time.
    hindsight
        Log weights of all frames until then, at each tenth of the run, where a later bias gives the weights.
    adaptive
        Whether the bias was built on the fly, so that the first frames are not used.
    """

    positions: list[Array] = field(default_factory=list)
    log_weights: list[float] = field(default_factory=list)
    hindsight: list[Array] = field(default_factory=list)
    adaptive: bool = False

    def angles(self) -> Array:
        """Torsions phi and psi [rad], shape (n_frames, 2)."""
        return _angles(np.array(self.positions))

    def weights_until(self, part: int) -> Array:
        """Log weights of the frames of the first `part` tenths."""
        if self.hindsight:
            return self.hindsight[part - 1]
        return np.array(self.log_weights[: part * len(self.positions) // PARTS])


def _angles(positions: Array) -> Array:
    module = build_features([TorsionSettings(atoms=[PHI, PSI])]).double()
    x = module(torch.from_numpy(positions), torch.empty(0))
    return np.asarray(torch.atan2(x[:, :2], x[:, 2:]).numpy())


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


def learned(model: Path, settings: BiasSettings) -> tuple[CollectiveVariables, Bias]:
    """A bias on the variables of a trained model."""
    trained = latf.load_model(model)
    return latf.latent_cv(trained), settings.build(latf.bias_context(trained, TEMPERATURE))


def torsions(settings: BiasSettings) -> tuple[CollectiveVariables, Bias]:
    """A bias on phi and psi, which are periodic."""
    cv = latf.torsion_cv([PHI, PSI], SYSTEM.build().system.getNumParticles())
    return cv, settings.build(latf.cv_context(cv.periods.tolist(), TEMPERATURE))


def ours(make: Callable[[], tuple[CollectiveVariables, Bias]], backend: BackendName = "auto") -> Run:
    def run(seed: int, steps: int) -> Frames:
        cv, bias = make()
        context = _context(latf.add_bias(SYSTEM.build().system, cv, bias, backend=backend), seed)
        updater = latf.BiasUpdater(cv, bias) if isinstance(bias, AdaptiveBias) else None
        frames = Frames(adaptive=updater is not None)
        for _ in range(steps // PACE):
            for _ in range(PACE // RECORD):
                context.getIntegrator().step(RECORD)
                frames.positions.append(_positions(context))
            latest = torch.from_numpy(np.array(frames.positions[-(PACE // RECORD) :]))
            with torch.no_grad():
                energy = bias(cv(latest, torch.empty(0))).numpy()
            offset = bias.offset() if isinstance(bias, AdaptiveBias) else 0.0
            frames.log_weights += list((energy - offset) / KT)
            if updater is not None:
                updater.update(context)
        return frames

    return run


def torsion_variables() -> list[app.BiasVariable]:
    variables = []
    for atoms in (PHI, PSI):
        force = openmm.CustomTorsionForce("theta")
        force.addTorsion(*atoms, [])
        variables.append(app.BiasVariable(force, -np.pi, np.pi, _SIGMA, True, 101))
    return variables


class OneComponent(nn.Module):
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
            openmmtorch.TorchForce(torch.jit.script(OneComponent(cv, i))),
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
        run = simulation(system, seed)
        axes = [np.linspace(v.minValue, v.maxValue, v.gridWidth) for v in sampler.variables]
        frames, values = Frames(adaptive=True), []
        for _ in range(PARTS):
            for _ in range(steps // RECORD // PARTS):
                sampler.step(run, RECORD)
                frames.positions.append(_positions(run.context))
                values.append(sampler.getCollectiveVariables(run))
            free_energy = sampler.getFreeEnergy().value_in_unit(unit.kilojoule_per_mole)
            bias = -free_energy * (BIAS_FACTOR - 1) / BIAS_FACTOR
            frames.hindsight.append(_interpolate(axes, bias.T, np.array(values, dtype=float)) / KT)
        return frames

    return run


def openmm_opes(seed: int, steps: int) -> Frames:
    """openmm-opes on phi and psi, frames weighted by exp(V/kT) at their time."""
    from openmm_opes import OPES

    system = SYSTEM.build().system
    sampler = OPES(
        system,
        torsion_variables(),
        temperature=TEMPERATURE * unit.kelvin,
        barrier=BARRIER * unit.kilojoules_per_mole,
        frequency=PACE,
        varianceFrequency=None,
    )
    run, frames = simulation(system, seed), Frames(adaptive=True)
    for _ in range(steps // RECORD):
        sampler.step(run, RECORD)  # ends with the update, where one is due
        frames.positions.append(_positions(run.context))
        energy = sampler.getBiasEnergy(run.context).value_in_unit(unit.kilojoule_per_mole)
        frames.log_weights.append(energy / KT)
    return frames


def simulation(system: openmm.System, seed: int) -> app.Simulation:
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION, TIMESTEP)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatformByName("Reference")
    made = app.Simulation(SYSTEM.build().topology, system, integrator, platform)
    made.context.setPositions(SYSTEM.build().positions[0])
    made.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    return made


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
        "latf metadynamics, learned": ours(lambda: learned(model, metadynamics)),
        "latf OPES, learned": ours(lambda: learned(model, OpesSettings(**opes))),
        "latf OPES explore, learned": ours(lambda: learned(model, OpesSettings(flavour="explore", **opes))),
        "latf flow barrier, learned": ours(lambda: learned(model, FlowBarrierSettings(barrier_kt=8.0))),
        "latf OPES, phi psi": ours(lambda: torsions(OpesSettings(sigma=_SIGMA, **opes))),
        "openmm.app Metadynamics, phi psi": openmm_metadynamics(torsion_variables),
        "openmm.app Metadynamics, learned": openmm_metadynamics(lambda: _learned_variables(model)),
        "openmm-opes, phi psi": openmm_opes,
    }
