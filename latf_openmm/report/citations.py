"""What to cite: the methods and programs behind a run."""

from collections.abc import Collection
from dataclasses import replace

from latf_openmm.report.sampling_works import ANNEALING, BIASES, INTEGRATOR, TEMPERING
from latf_openmm.report.work import Work

_METHOD = (
    Work(
        "Qiu2026LaTF",
        "the method, Latent Thermodynamic Flows",
        ("Qiu, Yunrui", "John, Richard", "Herron, Lukas", "Tiwary, Pratyush"),
        "Latent Thermodynamic Flows: Unified Representation Learning and Generative Modeling of "
        "Temperature-Dependent Behaviors from Limited Data",
        2026,
        "Chemical Science",
        doi="10.1039/D5SC06402C",
        arxiv="2507.03174",
    ),
    Work(
        "Wang2021SPIB",
        "collective variables and metastable states",
        ("Wang, Dedi", "Tiwary, Pratyush"),
        "State predictive information bottleneck",
        2021,
        "The Journal of Chemical Physics",
        "154",
        "13",
        "134111",
        "10.1063/5.0038198",
    ),
    Work(
        "Floto2023Tilted",
        "the tilted prior",
        ("Floto, Griffin", "Kremer, Stefan", "Nica, Mihai"),
        "The Tilted Variational Autoencoder: Improving Out-of-Distribution Detection",
        2023,
        venue="International Conference on Learning Representations (ICLR)",
    ),
    Work(
        "Dibak2022Temperature",
        "a flow that is steered by the temperature",
        ("Dibak, Manuel", "Klein, Leon", "Krämer, Andreas", "Noé, Frank"),
        "Temperature steerable flows and Boltzmann generators",
        2022,
        "Physical Review Research",
        "4",
        "4",
        "L042005",
        "10.1103/PhysRevResearch.4.L042005",
    ),
    Work(
        "Dinh2017RealNVP",
        "flows of coupling layers",
        ("Dinh, Laurent", "Sohl-Dickstein, Jascha", "Bengio, Samy"),
        "Density estimation using Real NVP",
        2017,
        venue="International Conference on Learning Representations (ICLR)",
        arxiv="1605.08803",
    ),
)
"""The method and what it rests on; cited for every run."""

_SPLINES = Work(
    "Durkan2019Splines",
    "splines in the layers of the flow",
    ("Durkan, Conor", "Bekasov, Artur", "Murray, Iain", "Papamakarios, George"),
    "Neural Spline Flows",
    2019,
    venue="Advances in Neural Information Processing Systems 32",
    arxiv="1906.04032",
)
"""For flows with `transform: spline`."""
_MBAR = Work(
    "Shirts2008MBAR",
    "reweighting between temperatures and biases (pymbar)",
    ("Shirts, Michael R.", "Chodera, John D."),
    "Statistically optimal analysis of samples from multiple equilibrium states",
    2008,
    "The Journal of Chemical Physics",
    "129",
    "",
    "124105",
    "10.1063/1.2978177",
)
"""For frames that are reweighted."""

_MULTIENSEMBLE = Work(
    "Wu2016TRAM",
    "states that only crossings connect",
    ("Wu, Hao", "Paul, Fabian", "Wehmeyer, Christoph", "Noé, Frank"),
    "Multiensemble Markov models of molecular thermodynamics and kinetics",
    2016,
    "Proceedings of the National Academy of Sciences",
    "113",
    "23",
    "E3221--E3230",
    "10.1073/pnas.1525092113",
)
"""For walkers that do not cross."""

_ENSEMBLE_TEST = Work(
    "Shirts2013Ensembles",
    "the test of energies against temperatures",
    ("Shirts, Michael R.",),
    "Simple Quantitative Tests to Validate Sampling from Thermodynamic Ensembles",
    2013,
    "Journal of Chemical Theory and Computation",
    "9",
    "2",
    "909--926",
    "10.1021/ct300688p",
)
"""For frames whose energies are known."""

_INEFFICIENCY = Work(
    "Chodera2007WHAM",
    "statistical inefficiencies (pymbar)",
    ("Chodera, John D.", "Swope, William C.", "Pitera, Jed W.", "Seok, Chaok", "Dill, Ken A."),
    "Use of the Weighted Histogram Analysis Method for the Analysis of Simulated and Parallel Tempering Simulations",
    2007,
    "Journal of Chemical Theory and Computation",
    "3",
    "1",
    "26--41",
    "10.1021/ct0502864",
)
"""For effective samples."""
_PROGRAMS = (
    Work(
        "Eastman2024OpenMM8",
        "the simulations",
        (
            "Eastman, P.", "Galvelis, R.", "Peláez, R. P.", "Abreu, C. R. A.", "Farr, S. E.", "Gallicchio, E.",
            "Gorenko, A.", "Henry, M. M.", "Hu, F.", "Huang, J.", "Krämer, A.", "Michel, J.", "Mitchell, J. A.",
            "Pande, V. S.", "Rodrigues, J. PGLM", "Rodriguez-Guerra, J.", "Simmonett, A. C.", "Singh, S.",
            "Swails, J.", "Turner, P.", "Wang, Y.", "Zhang, I.", "Chodera, J. D.", "De Fabritiis, G.",
            "Markland, T. E.",
        ),
        "OpenMM 8: Molecular Dynamics Simulation with Machine Learning Potentials",
        2024,
        "The Journal of Physical Chemistry B",
        "128",
        "1",
        "109--116",
        "10.1021/acs.jpcb.3c06662",
    ),
    Work(
        "Paszke2019PyTorch",
        "networks and their training",
        (
            "Paszke, Adam", "Gross, Sam", "Massa, Francisco", "Lerer, Adam", "Bradbury, James", "Chanan, Gregory",
            "Killeen, Trevor", "Lin, Zeming", "Gimelshein, Natalia", "Antiga, Luca", "Desmaison, Alban",
            "Köpf, Andreas", "Yang, Edward", "DeVito, Zachary", "Raison, Martin", "Tejani, Alykhan",
            "Chilamkurthy, Sasank", "Steiner, Benoit", "Fang, Lu", "Bai, Junjie", "Chintala, Soumith",
        ),
        "PyTorch: An Imperative Style, High-Performance Deep Learning Library",
        2019,
        venue="Advances in Neural Information Processing Systems 32",
        arxiv="1912.01703",
    ),
    Work(
        "McGibbon2015MDTraj",
        "reading trajectories and observables of structures",
        (
            "McGibbon, Robert T.", "Beauchamp, Kyle A.", "Harrigan, Matthew P.", "Klein, Christoph",
            "Swails, Jason M.", "Hernández, Carlos X.", "Schwantes, Christian R.", "Wang, Lee-Ping",
            "Lane, Thomas J.", "Pande, Vijay S.",
        ),
        "MDTraj: A Modern Open Library for the Analysis of Molecular Dynamics Trajectories",
        2015,
        "Biophysical Journal",
        "109",
        "8",
        "1528--1532",
        "10.1016/j.bpj.2015.08.015",
    ),
)  # fmt: skip
"""Programs that every run uses."""
_OPENMM = _PROGRAMS[0]
"""Stands for its plugin too."""
_PLUGIN = ", and the plugin openmm-torch that puts a network into a force"
"""What else OpenMM stands for where openmm-torch ran the bias."""


def works(
    biases: Collection[str],
    energies: bool,
    *,
    tempering: str = "",
    annealed: bool = False,
    splines: bool = True,
    simulated: bool = True,
    plugin: bool = False,
) -> list[Work]:
    """Return what a run rests on.

    Parameters
    ----------
    biases
        Kinds of bias that walkers felt.
    energies
        Whether the energies of the frames are known, so that frames are reweighted.
    tempering
        How walkers moved among temperatures; empty: they did not.
    annealed
        Whether ensembles were made by annealing.
    splines
        Whether layers of the flow have splines.
    simulated
        Whether a round was simulated, and not imported.
    plugin
        Whether openmm-torch ran the bias.
    """
    programs = [
        replace(work, why=work.why + _PLUGIN) if plugin and work is _OPENMM else work for work in _PROGRAMS
    ]
    return [
        *_METHOD,
        *([_SPLINES] if splines else []),
        *dict.fromkeys(work for kind in biases for work in BIASES.get(kind, ())),
        *([_MBAR, _MULTIENSEMBLE, _ENSEMBLE_TEST] if energies else []),
        _INEFFICIENCY,
        *TEMPERING.get(tempering, ()),
        *(ANNEALING if annealed else ()),
        *([INTEGRATOR] if simulated else []),
        *programs,
    ]
