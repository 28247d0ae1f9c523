"""Publications on how frames are sampled: biases, tempering, annealing, the integrator."""

from collections.abc import Mapping

from latf_openmm.report.work import Work

_OPES = Work(
    "Invernizzi2020OPES",
    "the form of the bias",
    ("Invernizzi, Michele", "Parrinello, Michele"),
    "Rethinking Metadynamics: From Bias Potentials to Probability Distributions",
    2020,
    "The Journal of Physical Chemistry Letters",
    "11",
    "",
    "2731--2736",
    "10.1021/acs.jpclett.0c00497",
)
"""For the bias kinds `opes` and `flow_barrier`."""

_METADYNAMICS = (
    Work(
        "Laio2002Metadynamics",
        "metadynamics",
        ("Laio, Alessandro", "Parrinello, Michele"),
        "Escaping free-energy minima",
        2002,
        "Proceedings of the National Academy of Sciences",
        "99",
        "20",
        "12562--12566",
        "10.1073/pnas.202427399",
    ),
    Work(
        "Barducci2008WellTempered",
        "well-tempered metadynamics",
        ("Barducci, Alessandro", "Bussi, Giovanni", "Parrinello, Michele"),
        "Well-Tempered Metadynamics: A Smoothly Converging and Tunable Free-Energy Method",
        2008,
        "Physical Review Letters",
        "100",
        "2",
        "020603",
        "10.1103/PhysRevLett.100.020603",
    ),
)
"""For the bias kind `metadynamics`."""

BIASES: Mapping[str, tuple[Work, ...]] = {
    "opes": (_OPES,),
    "flow_barrier": (_OPES,),
    "metadynamics": _METADYNAMICS,
}
"""By the kind of a bias; the other kinds have none."""
ANNEALING = (
    Work(
        "Hukushima2003Annealing",
        "population annealing",
        ("Hukushima, Koji", "Iba, Yukito"),
        "Population Annealing and Its Application to a Spin Glass",
        2003,
        "AIP Conference Proceedings",
        "690",
        "1",
        "200--206",
        "10.1063/1.1632130",
    ),
    Work(
        "Neal2001Annealed",
        "weights of annealed walkers",
        ("Neal, Radford M.",),
        "Annealed importance sampling",
        2001,
        "Statistics and Computing",
        "11",
        "2",
        "125--139",
        "10.1023/A:1008923215028",
    ),
)
"""For ensembles by annealing."""

INTEGRATOR = Work(
    "Zhang2019Thermostat",
    "Langevin dynamics with the middle scheme",
    ("Zhang, Zhijun", "Liu, Xinzijian", "Yan, Kangyu", "Tuckerman, Mark E.", "Liu, Jian"),
    "Unified Efficient Thermostat Scheme for the Canonical Ensemble with Holonomic or Isokinetic Constraints via "
    "Molecular Dynamics",
    2019,
    "The Journal of Physical Chemistry A",
    "123",
    "28",
    "6056--6079",
    "10.1021/acs.jpca.9b02771",
)
"""For simulated rounds."""
TEMPERING: Mapping[str, tuple[Work, ...]] = {
    "exchange": (
        Work(
            "Sugita1999Exchange",
            "walkers that exchange temperatures",
            ("Sugita, Yuji", "Okamoto, Yuko"),
            "Replica-exchange molecular dynamics method for protein folding",
            1999,
            "Chemical Physics Letters",
            "314",
            "1--2",
            "141--151",
            "10.1016/S0009-2614(99)01123-9",
        ),
        Work(
            "Chodera2011Gibbs",
            "exchange as Gibbs sampling",
            ("Chodera, John D.", "Shirts, Michael R."),
            "Replica exchange and expanded ensemble simulations as Gibbs sampling: Simple improvements for enhanced "
            "mixing",
            2011,
            "The Journal of Chemical Physics",
            "135",
            "19",
            "194110",
            "10.1063/1.3660669",
        ),
    ),
    "expanded": (
        Work(
            "Marinari1992Tempering",
            "walkers that visit all temperatures",
            ("Marinari, Enzo", "Parisi, Giorgio"),
            "Simulated Tempering: A New Monte Carlo Scheme",
            1992,
            "Europhysics Letters",
            "19",
            "6",
            "451--458",
            "10.1209/0295-5075/19/6/002",
        ),
        Work(
            "Tan2017SAMS",
            "weights of temperatures",
            ("Tan, Zhiqiang",),
            "Optimally Adjusted Mixture Sampling and Locally Weighted Histogram Analysis",
            2017,
            "Journal of Computational and Graphical Statistics",
            "26",
            "1",
            "54--65",
            "10.1080/10618600.2015.1113975",
        ),
    ),
}
"""By kind of tempering."""
