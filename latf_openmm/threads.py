"""Number of threads that torch computes with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Let torch compute with so many threads; as many as before afterwards. A decorator too.

    Many small operations, as of a flow, are slower with several threads, which wait for each other after each of them:
    12 times the processor time on two cores that have other work.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
