"""Guess which flag a user meant by a flag that does not exist."""

import difflib
from collections.abc import Iterable

_LEAST = 0.6  # smallest likeness of a guess, see `_likeness`
_SHOWN = 3
_MARGIN = 0.03  # guesses are shown together if their likeness differs by less
_OWN = 0.1
# Names that other programs give to options of ktfast.
_SYNONYMS = {
    "k": "n_clusters",
    "lr": "learning_rate",
    "bs": "batch_size",
    "jobs": "threads",
    "n_jobs": "threads",
    "workers": "threads",
    "num_workers": "threads",
    "gpu": "device",
    "output": "run",
    "out": "run",
    "images": "data.pretext",
    "photos": "data.pretext",
    "input": "data.pretext",
    "iterations": "max_iter",
    "restarts": "n_init",
}


def guess(given: str, names: Iterable[str], own: str = "") -> list[str]:
    """Find the options that a user may have meant.

    Parameters
    ----------
    given : str
        The unknown flag, such as "--clusters".
    names : iterable of str
        Names of the options without dashes in front, such as "cluster.n_clusters".
    own : str, default ""
        Section that is preferred if options of several sections are equally likely, as is the
        section of the flag itself.

    Returns
    -------
    names : list of str
        The likeliest options, at most three. Empty if no option is like the flag.
    """
    wanted = given.lstrip("-").partition("=")[0].lower().replace("-", "_")
    section, _, leaf = wanted.rpartition(".")
    if leaf in _SYNONYMS:
        wanted = f"{section}.{_SYNONYMS[leaf]}".lstrip(".")
    likeness = {}
    for name in names:
        spelled = name.replace("-", "_")
        in_section = [s for s in (own, section) if s and spelled.startswith(f"{s}.")]
        bonus = _OWN * len(in_section)
        if (alike := _likeness(wanted, spelled)) >= _LEAST:
            likeness[name] = alike + bonus
    best = max(likeness.values(), default=0.0)
    return [name for name, alike in likeness.items() if alike > best - _MARGIN][:_SHOWN]


def _likeness(wanted: str, name: str) -> float:
    """Rate from 0 to 1 how alike two names are, by whole words first and then by letters."""
    parts = name.split(".")
    endings = [".".join(parts[first:]) for first in range(len(parts))]
    if wanted in endings:
        return 1.0
    leaf = endings[-1]
    words = [word for word in leaf.split("_") if word != "n"]
    asked = [word for word in wanted.rpartition(".")[2].split("_") if word != "n"]
    if asked == words:
        return 0.98
    if asked and set(asked) < set(words):
        return 0.8 + 0.1 * len(asked) / len(words)
    return 0.95 * max(difflib.SequenceMatcher(None, wanted, ending).ratio() for ending in endings)


def spelled_guess(names: list[str]) -> str:
    """Spell guesses as the end of a sentence; empty if there are none."""
    if not names:
        return ""
    flags = [f"--{name}" for name in names]
    head, last = ", ".join(flags[:-1]), flags[-1]
    return f"; did you mean {f'{head} or {last}' if head else last}?"
