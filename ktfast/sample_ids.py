"""Sample ids: the numbers by which every stage names an image."""

import hashlib
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ktfast.errors import DataError


def sample_ids_of(paths: Sequence[str]) -> npt.NDArray[np.int64]:
    """The sample id of each relative path: 63 bits of its BLAKE2b hash, int64 [n].

    Raises
    ------
    DataError
        Two paths have the same sample id. The message names them.
    """
    digests = b"".join(hashlib.blake2b(os.fsencode(path), digest_size=8).digest() for path in paths)
    ids = (np.frombuffer(digests, "<u8") >> np.uint64(1)).astype(np.int64)
    order = np.argsort(ids, kind="stable")
    equal = np.flatnonzero(ids[order[1:]] == ids[order[:-1]])
    if equal.size:
        first, second = paths[order[equal[0]]], paths[order[equal[0] + 1]]
        problem = "is listed twice" if first == second else f"and {second} have the same sample id"
        raise DataError(f"image {first} {problem}; list each file once, or rename one of them")
    return ids
