"""Threads of torch: one for the small operations of a flow, as before for the rest."""

import pytest
import torch
from helpers.ensembles import model

from latf_openmm.threads import torch_threads


def test_densities_and_samples_take_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several threads wait for each other after every operation."""
    flows, seen = model(), []
    flow = flows.flows[0]
    for name in ("forward", "inverse"):
        function = getattr(flow, name)

        def noting(*given: torch.Tensor, function: object = function) -> object:
            seen.append(torch.get_num_threads())
            return function(*given)  # type: ignore[operator]

        monkeypatch.setattr(flow, name, noting)
    with torch_threads(2):
        density = flows.density(1.0)
        density.log_prob(density.sample(30))
        assert torch.get_num_threads() == 2
    assert seen == [1, 1]


def test_threads_are_as_before_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), torch_threads(before + 1):
        torch.ones(1 // 0)
    assert torch.get_num_threads() == before
