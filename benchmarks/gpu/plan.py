"""The parts of a GPU session: their names, their order, and the time of each."""

import sys
from collections.abc import Iterator, Sequence

OPS = ("jigsaw_tiles", "kmeans_assign", "kmeans_update", "KMeans")
COMPARISONS = tuple(f"compare:{op}" for op in OPS)
# The parts that a session of five minutes does, in their order, and the seconds that the session
# keeps for each. An earlier part may take longer only if another part has left time.
FIRST = {
    "build": 90, "paths": 20, "compare": 40, "ceilings": 15, "bench:jigsaw_tiles": 15,
    "kmeans:phases": 45, "kmeans:fits": 30, "end_to_end": 40,
}  # fmt: skip
# The parts that follow if time is left.
THEN = (
    "jit", "tests", "kmeans:exact", "kmeans:stream", "peers:256", "peers:4096", "profile",
    "sanitize", "train",
)  # fmt: skip
PARTS = (*FIRST, *THEN)
# Most seconds of a part; "kmeans" stands for all parts whose name begins with "kmeans:".
LIMITS = {
    "wheels": 60, "build": 240, "paths": 30, "compare": 120, "ceilings": 40, "bench": 45,
    "kmeans": 110, "kmeans:phases": 140, "kmeans:exact": 45, "end_to_end": 100, "jit": 200,
    "tests": 180, "peers": 220, "peers:4096": 400, "train": 330, "sanitize": 300, "profile": 150,
    "everything": 240,
}  # fmt: skip
# Sections of measure.py by part, where the names differ.
SECTIONS = {"compare": COMPARISONS}
OWN = ("build", "jit", "tests", "profile", "sanitize")  # parts that measure.py does not do
NOT_DRY = ("build", "jit", "peers:4096")  # a dry run leaves these parts out


def sections_of(part: str) -> Sequence[str]:
    """The sections of measure.py that make up a part; none for a part that is not measured."""
    return () if part in OWN else SECTIONS.get(part, (part,))


def reserved(later: Sequence[str], seconds: float) -> float:
    """Seconds that a part must leave to the parts after it.

    Parameters
    ----------
    later : sequence of str
        The parts after it.
    seconds : float
        Time of the whole session. In a session shorter than all of `FIRST`, every part gets less.

    Returns
    -------
    reserve : float
        Seconds at the end of the session.
    """
    share = min(1.0, seconds / sum(FIRST.values()))
    return share * sum(FIRST.get(name, 0) for name in later)


def chosen(only: str, skip: str) -> Iterator[str]:
    """The names of the parts to do, in their order.

    Parameters
    ----------
    only, skip : str
        Names of parts or of groups of parts, separated by commas.

    Yields
    ------
    name : str
        A part that is wanted and not skipped.

    Raises
    ------
    SystemExit
        A name is unknown.
    """
    wanted, unwanted = (text.split(",") if text else [] for text in (only, skip))
    groups = {name.partition(":")[0] for name in PARTS}
    for name in (*wanted, *unwanted):
        if name not in groups and name not in PARTS:
            sys.exit(f"there is no part {name}; the parts are {', '.join(PARTS)}")
    for name in PARTS:
        own = {name, name.partition(":")[0]}
        if (not wanted or own & set(wanted)) and not own & set(unwanted):
            yield name
