"""Spell paths for libraries that open only paths in UTF-8, as safetensors does."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def utf8_path(path: str | os.PathLike[str]) -> Iterator[str]:
    """Give a spelling of a file's path that is UTF-8, valid inside the block.

    Parameters
    ----------
    path : path
        An existing file. Its path may hold any bytes.

    Yields
    ------
    spelling : str
        The path itself, or the path of an open descriptor of the file.

    Raises
    ------
    OSError
        The path is not UTF-8, and the file cannot be opened.
    """
    text = os.fspath(path)
    if text.encode("utf-8", "replace").decode() == text:
        yield text
    else:
        with open(path, "rb") as file:
            yield f"/dev/fd/{file.fileno()}"
