"""An uninterrupted training, which tests compare with, and trials of a fixed size."""

import math

import pytest

from support.one_thread import limited_to_one_thread
from support.toy_training import toy_train


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """Folder, summary and hash of the weights of an uninterrupted training."""
    folder = tmp_path_factory.mktemp("whole")
    with limited_to_one_thread():
        summary, digest = toy_train(folder)
    return folder, summary, digest


@pytest.fixture(autouse=True)
def trials_of_two_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of the speed end after two images, so that tests can tell a trial from a step."""
    monkeypatch.setattr("ktfast.training.speed.SHORT_SECONDS", math.inf)
