#!/bin/bash
# What does deeptime's maximum-likelihood MSM do with counts whose states fall into two unconnected sets?
#
# Guess: it raises a ValueError.
# Seen (deeptime 0.4.5): a reversible model is fitted, without a word, to one of the sets; and "largest" counts states, not
#   transitions: two states with 99 transitions are left out for three with 59. With reversible=False the same set is taken
#   and all its time scales are infinite (the set is a pure cycle).
#     n_states 3, states kept [2, 3, 4]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet deeptime==0.4.5 numpy==2.4.6
venv/bin/python -W ignore - <<'PY'
from importlib.metadata import version

import numpy as np
from deeptime.markov import TransitionCountEstimator
from deeptime.markov.msm import MaximumLikelihoodMSM

trajectories = [np.array([0, 1] * 50), np.array([2, 3, 4] * 20)]
counts = TransitionCountEstimator(lagtime=1, count_mode="sliding").fit_fetch(trajectories)
total = [counts.count_matrix[:2].sum(), counts.count_matrix[2:].sum()]
print("deeptime", version("deeptime"), "transitions of {0, 1} and {2, 3, 4}:", total)
model = MaximumLikelihoodMSM(reversible=True).fit_fetch(counts)
kept = list(model.count_model.state_symbols)
print("states of the model:", kept, "stationary distribution:", model.stationary_distribution.round(3))
plain = MaximumLikelihoodMSM(reversible=False).fit_fetch(counts)
print("not reversible: states", list(plain.count_model.state_symbols), "time scales", plain.timescales())
assert total == [99, 59]
assert kept == [2, 3, 4], "another set is taken"
assert np.isinf(plain.timescales()).all(), "time scales are finite now"
PY
