"""Fixtures that several tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets: KTFAST_TEST_DATA, or `shared/data` beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("KTFAST_TEST_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set KTFAST_TEST_DATA")
    return folder
