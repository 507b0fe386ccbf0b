"""Find the files that two lists of images have in common."""

import numpy as np

from ktfast.images.index import ImageIndex


def same_files(first: ImageIndex, second: ImageIndex) -> list[tuple[str, str]]:
    """List the images of one index that are also images of another index.

    A file is recognised under every path: through symbolic links, hard links and mounted folders.
    A copy is another file.

    Parameters
    ----------
    first, second : ImageIndex
        The images, as they were when the folders were listed.

    Returns
    -------
    pairs : list of (str, str)
        Path of each common file below the root of `first` and below the root of `second`, in the
        order of `first`.
    """
    if not (len(first.file_ids) and len(second.file_ids)):
        return []
    # Few of the numbers are in both lists, so the slow exact comparison gets only these rows.
    left, right = (
        np.flatnonzero(np.isin(one.file_ids[:, 1], other.file_ids[:, 1]))
        for one, other in ((first, second), (second, first))
    )
    known = {_state(second, row): second.paths[row] for row in reversed(right.tolist())}
    return [
        (first.paths[row], known[state])
        for row in left.tolist()
        if (state := _state(first, row)) in known
    ]


def _state(index: ImageIndex, row: int) -> tuple[int, ...]:
    """The identity of a file, with size and time: some network file systems repeat inodes."""
    return (*index.file_ids[row].tolist(), int(index.sizes[row]), int(index.mtimes_ns[row]))
