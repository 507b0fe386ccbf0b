"""An uninterrupted training, which tests compare with."""

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
