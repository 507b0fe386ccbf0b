"""Fixtures of the tests of images."""

from pathlib import Path

import pytest

from ktfast.images.index import ImageIndex
from ktfast.images.source import FolderSource
from support.pictures import photo_folder


@pytest.fixture
def photos(tmp_path: Path) -> FolderSource:
    """23 photographs as files."""
    return FolderSource(ImageIndex.scan(photo_folder(tmp_path / "photos", 23)))
