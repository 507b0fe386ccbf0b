"""The binary tree that adds up the lanes of a step, and which lanes a process computes.

The tree over the lanes a to b - 1 adds up the tree over the first half and that over the second
half. The tree depends on the number of lanes only. A process that computes some lanes knows the
sums of the subtrees that lie within these lanes.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from ktfast.kmeans.distributed.ranks import Ranks

Span = tuple[int, int]
"""First lane of a subtree, and the lane after its last lane."""
Floats = npt.NDArray[np.floating]


def uneven(lanes: int, size: int) -> str:
    """Say why processes cannot share lanes evenly, and what to do; empty if they can.

    Parameters
    ----------
    lanes : int
        Number of lanes.
    size : int
        Number of processes.

    Returns
    -------
    problem : str
        End of a sentence.
    """
    if lanes % size == 0:
        return ""
    fitting = ", ".join(str(n) for n in range(1, lanes + 1) if lanes % n == 0)
    return (
        f"which {size} processes cannot share evenly; start one of these numbers of processes: "
        f"{fitting}; or set training.lanes to a multiple of {size}"
    )


def lane_bounds(n: int, lanes: int, *, lone: bool) -> list[int]:
    """Cut a batch into lanes.

    Parameters
    ----------
    n : int
        Number of images of the batch.
    lanes : int
        Number of lanes.
    lone : bool
        Whether a lane may be one image. If not, a batch that gives some lane one image is cut into
        fewer lanes, of two images or more, and the last lanes are empty.

    Returns
    -------
    bounds : list of int
        The first image of each lane, and `n`.
    """
    # The smallest lane has n // lanes images.
    filled = lanes if lone or n // lanes > 1 else max(1, n // 2)
    return [n * min(lane, filled) // filled for lane in range(lanes + 1)]


def own_lanes(count: int, ranks: Ranks) -> Span:
    """Give the lanes of this process: the first one, and the one after the last one."""
    each = count // ranks.size
    return ranks.rank * each, (ranks.rank + 1) * each


def subtrees(count: int, own: Span) -> list[Span]:
    """List the largest subtrees that consist of some lanes only.

    Parameters
    ----------
    count : int
        Number of lanes of the tree.
    own : tuple of int
        The lanes.

    Returns
    -------
    spans : list of tuple of int
        The subtrees, in the order of their lanes.
    """

    def within(span: Span) -> Iterator[Span]:
        if own[0] <= span[0] and span[1] <= own[1]:
            yield span
        elif span[0] < own[1] and own[0] < span[1]:
            for half in halves(span):
                yield from within(half)

    return list(within((0, count)))


def tree_sum(ranks: Ranks, count: int, own: Mapping[Span, Floats]) -> Floats:
    """Add up the subtrees of all processes.

    Each process adds up one slice of the vectors, and then sends its slice of the sum to all.

    Parameters
    ----------
    ranks : Ranks
        The processes.
    count : int
        Number of lanes of the tree.
    own : mapping of span to array, float [m]
        Sum of each subtree of this process.

    Returns
    -------
    total : array, float [m]
        The sum of all lanes.
    """
    each, (first, *_) = count // ranks.size, own.values()
    spans = [subtrees(count, (rank * each, (rank + 1) * each)) for rank in range(ranks.size)]
    width = -(-len(first) // ranks.size)
    table = np.zeros((ranks.size, max(map(len, spans)), width), first.dtype)
    for number, vector in enumerate(own.values()):
        padded = np.zeros(width * ranks.size, first.dtype)
        padded[: len(vector)] = vector
        table[:, number] = padded.reshape(ranks.size, width)
    received = ranks.exchange(table)
    slices = {
        span: received[rank, number]
        for rank, found in enumerate(spans)
        for number, span in enumerate(found)
    }
    total = ranks.exchange(np.repeat(_joined((0, count), slices)[None], ranks.size, axis=0))
    return np.asarray(total.reshape(-1)[: len(first)])


def halves(span: Span) -> tuple[Span, Span]:
    """Give the two subtrees of a subtree with several lanes."""
    middle = (span[0] + span[1]) // 2
    return (span[0], middle), (middle, span[1])


def _joined(span: Span, sums: Mapping[Span, Floats]) -> Floats:
    if span in sums:
        return sums[span]
    left, right = (_joined(half, sums) for half in halves(span))
    return np.asarray(left + right)
