"""The report's section on measures of the clusters and the student that need no labels."""

from collections.abc import Callable
from dataclasses import dataclass

from ktfast.evaluation.unlabelled_result import Pair, UnlabelledMeasures
from ktfast.report.formats import amount, percent


@dataclass(frozen=True)
class MeasureRow:
    """One measure: its name, what it says, and the two values as text."""

    name: str
    meaning: str
    trained: str
    untrained: str


@dataclass(frozen=True)
class UnlabelledSection:
    """What the section shows.

    Attributes
    ----------
    rows : list of MeasureRow
        The measures.
    facts : list of pairs of str
        Name and value of each detail of the measurement.
    """

    rows: list[MeasureRow]
    facts: list[tuple[str, str]]


def unlabelled_section(
    found: UnlabelledMeasures | None, objective: str = "clusters"
) -> UnlabelledSection | None:
    """The measures without labels; None if the stage evaluate did not compute them."""
    if found is None:
        return None
    saw = "the student saw these pseudo-labels in its training"
    if objective != "clusters":
        saw = f"the student learnt with the objective {objective}, and saw no pseudo-label"
    rows = [
        _row(
            "Agreement of two seeds",
            "adjusted Rand index of two clusterings of the teacher's features: 1 if both seeds "
            "give the same clusters, 0 for independent clusters",
            found.agreement,
            _two_digits,
        ),
        _row(
            "Held-out pseudo-labels",
            "share of held-out images whose pseudo-label the nearest neighbours in the student's "
            f"features predict; {saw}",
            found.pseudo_labels,
            percent,
        ),
        _row(
            "Shared neighbours",
            "share of an image's nearest neighbours that the teacher and the student agree on",
            found.shared_neighbours,
            percent,
        ),
        _row(
            "Effective rank",
            "number of directions that the student's features use",
            found.effective_rank,
            amount,
        ),
    ]
    facts = [
        ("layer of the student", found.layer),
        ("images", amount(found.images)),
        ("images for the pseudo-labels", amount(found.voters)),
        ("neighbours", amount(found.neighbors)),
    ]
    return UnlabelledSection(rows, facts if found.layer else [])


def unlabelled_headline(found: UnlabelledMeasures) -> tuple[str, list[str]]:
    """State in a headline and a paragraph what the measures without labels show.

    Parameters
    ----------
    found : UnlabelledMeasures
        The measures.

    Returns
    -------
    headline : str
        One short sentence.
    sentences : list of str
        The paragraph.
    """
    agreement, accuracy = found.agreement, found.pseudo_labels
    headline = "Clustered without labels: how good the student is for a task is not measured"
    if agreement.trained is not None:
        headline = f"Two seeds agree on the clusters with an index of {agreement.trained:.2f}"
    sentences = ["There are no labelled images, so no probe was trained."]
    if agreement.trained is not None:
        sentences.append(
            "K-means with another seed gives clusters whose adjusted Rand index with the run's "
            f"clusters is {agreement.trained:.2f}{_beside(agreement, _two_digits)}."
        )
    if accuracy.trained is not None:
        sentences.append(
            f"The student's features predict {percent(accuracy.trained)} of the held-out "
            f"pseudo-labels{_beside(accuracy, percent)}."
        )
    return headline, sentences


def unlabelled_tiles(found: UnlabelledMeasures) -> list[tuple[str, str, str]]:
    """Title, value and second line of the top figures that replace those of the probes."""
    pairs = (
        ("Agreement of two seeds", found.agreement, _two_digits),
        ("Held-out pseudo-labels", found.pseudo_labels, percent),
    )
    rows = [_row(name, "", pair, spell) for name, pair, spell in pairs]
    beside = ["" if r.untrained == "–" else f"untrained network {r.untrained}" for r in rows]
    return [(row.name, row.trained, text) for row, text in zip(rows, beside, strict=True)]


def _beside(pair: Pair, spell: Callable[[float], str]) -> str:
    return "" if pair.untrained is None else f" ({spell(pair.untrained)} for an untrained network)"


def _row(name: str, meaning: str, pair: Pair, spell: Callable[[float], str]) -> MeasureRow:
    trained, untrained = (
        "–" if value is None else spell(value) for value in (pair.trained, pair.untrained)
    )
    return MeasureRow(name, meaning, trained, untrained)


def _two_digits(value: float) -> str:
    return f"{value:.2f}"
