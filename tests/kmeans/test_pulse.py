"""Signs of life: a process that computes for long is alive, and a process that hangs is not."""

import time

import pytest
import torch.distributed

from ktfast.errors import InputError
from ktfast.kmeans.distributed import CommunicationError
from ktfast.kmeans.distributed.pulse import LIMIT_SECONDS, VARIABLE, limit_seconds, pulse_of


@pytest.fixture
def pulses():
    """Signs of life of three processes, once per second and faster."""
    store = torch.distributed.HashStore()
    made = [pulse_of(store, "group", rank, 3, limit=0.6) for rank in range(3)]
    for pulse in made:
        pulse.start()
    yield made
    for pulse in made:
        pulse.stop()


def test_a_process_without_signs_of_life_is_named(pulses):
    time.sleep(0.9)  # longer than the limit
    for pulse in pulses:
        pulse.check()
    pulses[1].stop()
    until = time.monotonic() + 20
    while not pulses[0].has_lost and time.monotonic() < until:
        time.sleep(0.02)
    with pytest.raises(CommunicationError, match=r"process 1 has given no sign of life for 0\.6 s"):
        pulses[0].check()


def test_the_limit_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert limit_seconds() == LIMIT_SECONDS == 60
    monkeypatch.setenv(VARIABLE, "300")
    assert limit_seconds() == 300
    for wrong in ("soon", "0", "-3", "nan", "inf"):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(InputError, match="must be a positive number of seconds"):
            limit_seconds()
