"""Run tests in one torch thread, in which float sums have one order; seed torch's generator."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch


@contextmanager
def limited_to_one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For the tests of a file that imports this fixture."""
    with limited_to_one_thread():
        yield


@pytest.fixture(autouse=True)
def one_thread_and_a_seed() -> Iterator[None]:
    """For the tests of a file that imports this fixture; torch's generator starts at seed 0."""
    with limited_to_one_thread(), torch.random.fork_rng():
        torch.manual_seed(0)
        yield
