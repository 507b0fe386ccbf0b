"""Numbers in words: durations, rates, percentages, and the one-paragraph result of a run."""

import math
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

MODEL_NAMES = {
    "transfer": "transfer (clusters as labels)",
    "pretext": "puzzle only (no clustering)",
    "labels": "true labels",
    "random": "random weights",
}


def duration(seconds: Any) -> str:
    """Seconds as `4.2 s`, `3 min 05 s` or `1 h 12 min`; a dash if they are no number."""
    value = number(seconds)
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min"


def moment(seconds: Any) -> str:
    """Seconds since 1970 as `2026-05-01 12:03`, UTC; a dash if they are no number."""
    value = number(seconds)
    if value is None or not 0 <= value < 1e11:
        return "–"
    return datetime.fromtimestamp(value, timezone.utc).strftime("%Y-%m-%d %H:%M")


def amount(value: Any) -> str:
    """A number with as many digits as tell something; a dash if it is none."""
    known = number(value)
    if known is None:
        return "–"
    if float(known).is_integer() and abs(known) < 1e15:
        return f"{int(known):,}"
    return f"{known:,.0f}" if abs(known) >= 100 else f"{known:.3g}"


def percent(value: Any, digits: int = 1) -> str:
    """A fraction as `12.3 %` with a fixed space; a dash if it is no number."""
    known = number(value)
    return "–" if known is None else f"{100 * known:.{digits}f}\u00a0%"


def number(value: Any) -> float | None:
    """The value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


@dataclass(frozen=True)
class Verdict:
    """What the run shows, said plainly.

    Attributes
    ----------
    outcome : "ahead", "behind", "even" or "open".
    headline : one short sentence.
    sentences : the paragraph.
    caveat : what limits it, or nothing.
    """

    outcome: str
    headline: str
    sentences: list[str] = field(default_factory=list)
    caveat: str = ""


def verdict(
    evaluation: dict[str, Any] | None,
    cluster: dict[str, Any] | None,
    pretext: dict[str, Any] | None,
    n_test: float | None,
) -> Verdict:
    """Say whether the transferred network beats random weights, and by how much.

    Parameters
    ----------
    evaluation, cluster, pretext : summaries of these stages, or None where they are missing.
    n_test : images in the test set, if known; decides what counts as no difference.
    """
    sides = _other_findings(cluster, pretext)
    linear = (evaluation or {}).get("linear")
    rows = linear if isinstance(linear, dict) else {}
    best = {name: _best(row) for name, row in rows.items()}
    transfer, random = best.get("transfer"), best.get("random")
    if transfer is None:
        reason = "the evaluation was not run" if evaluation is None else "it has no such probe"
        return Verdict(
            "open",
            "Not evaluated: nothing is known about the transfer yet",
            [f"There is no linear probe of the transferred network ({reason}).", *sides],
        )
    metric = str((evaluation or {}).get("metric", "accuracy"))
    first = (
        f"A linear probe on the frozen layers of the transferred network reaches "
        f"{percent(transfer[1])} {metric} at its best layer ({transfer[0]})"
    )
    if random is None:
        return Verdict(
            "open",
            "No baseline: the transfer was not compared with random weights",
            [f"{first}; without the random baseline that says little.", *sides],
        )
    gap = transfer[1] - random[1]
    error = _standard_error(transfer[1], random[1], n_test)
    ahead, shared = _layers_ahead(rows["transfer"], rows["random"])
    outcome, headline = _headline(gap, error)
    sentences = [
        f"{first}; the same network with random weights reaches {percent(random[1])} "
        f"({random[0]}). Transfer is ahead at {ahead} of {shared} layers."
    ]
    sentences += _baselines(best, transfer[1])
    sentences += sides
    caveat = "This is one run with one seed, each model at its best layer on the test images"
    if error is not None:
        caveat += (
            f"; with {amount(n_test)} test images a difference of up to "
            f"about {200 * error:.1f} points is within the noise"
        )
    return Verdict(outcome, headline, sentences, f"{caveat}.")


def _headline(gap: float, error: float | None) -> tuple[str, str]:
    points = f"{abs(100 * gap):.1f} points"
    if error is not None and abs(gap) < 2 * error:
        return "even", f"Transfer and random weights cannot be told apart ({100 * gap:+.1f} points)"
    if gap > 0:
        return "ahead", f"Transfer beat random weights by {points}"
    return "behind", f"Transfer did not beat random weights: it is {points} behind"


def _baselines(best: dict[str, tuple[str, float] | None], transfer: float) -> list[str]:
    sentences = []
    pretext, labels = best.get("pretext"), best.get("labels")
    if pretext is not None:
        gap = 100 * (transfer - pretext[1])
        effect = f"gained {gap:.1f}" if gap >= 0 else f"lost {-gap:.1f}"
        sentences.append(
            f"Learning the puzzle with the target network itself gives {percent(pretext[1])} "
            f"({pretext[0]}), so going through clusters {effect} points."
        )
    if labels is not None:
        sentences.append(f"Training on the true labels gives {percent(labels[1])} ({labels[0]}).")
    return sentences


def _other_findings(cluster: dict[str, Any] | None, pretext: dict[str, Any] | None) -> list[str]:
    sentences = []
    accuracy, chance = (number((pretext or {}).get(key)) for key in ("accuracy", "chance"))
    if accuracy is not None and chance is not None:
        sentences.append(
            f"The puzzle network solves {percent(accuracy)} of its puzzles (chance "
            f"{percent(chance, 2)})."
        )
    nmi, random = (number((cluster or {}).get(key)) for key in ("nmi", "nmi_random"))
    if nmi is not None:
        beside = "" if random is None else f" ({random:.3f} for those of an untrained network)"
        sentences.append(
            f"The clusters agree with the true classes with a normalised mutual information of "
            f"{nmi:.3f}{beside}."
        )
    return sentences


def _best(row: Any) -> tuple[str, float] | None:
    """Layer with the highest accuracy, and that accuracy; the first one of equals."""
    known = {key: number(value) for key, value in row.items()} if isinstance(row, dict) else {}
    layers = {key: value for key, value in known.items() if value is not None}
    return max(layers.items(), key=lambda item: item[1]) if layers else None


def _layers_ahead(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[int, int]:
    pairs = [(number(ours[key]), number(theirs[key])) for key in ours if key in theirs]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return sum(a > b for a, b in known), len(known)


def _standard_error(a: float, b: float, n_test: float | None) -> float | None:
    """Standard error of the difference of two accuracies on n_test images, taken as independent.

    Both models see the same images, so the true error is smaller: a cautious bar.
    """
    if not n_test:
        return None
    return math.sqrt((a * (1 - a) + b * (1 - b)) / n_test)
