"""Fixtures of the data tests."""

from pathlib import Path

import pytest
from pictures import photo_folder

from ktfast.data.index import ImageIndex
from ktfast.data.source import FolderSource


@pytest.fixture
def photos(tmp_path: Path) -> FolderSource:
    """23 photographs as files."""
    return FolderSource(ImageIndex.scan(photo_folder(tmp_path / "photos", 23)))
