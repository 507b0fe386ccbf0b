"""Say in the report why transfer is not better than random weights, as far as the run shows it."""

from dataclasses import replace

from ktfast.report.formats import amount, percent
from ktfast.report.summaries import ClusterSummary, TrainingResult
from ktfast.report.verdict import Verdict

FEW_IMAGES = 10.0
"""A run whose median cluster holds fewer images has little to learn from each pseudo-label."""

LEARNT = 3.0
"""The target has learnt something if its accuracy is this multiple of the accuracy of guessing."""


def with_causes(
    found: Verdict,
    pretext: TrainingResult | None,
    cluster: ClusterSummary | None,
    transfer: TrainingResult | None,
) -> Verdict:
    """Add the probable causes to a verdict that transfer is not better than random weights.

    Parameters
    ----------
    found : Verdict
        The verdict.
    pretext, transfer : TrainingResult, optional
        Summaries of the trainings; of the pretext only if the features come from its network.
    cluster : ClusterSummary, optional
        Summary of the stage cluster, if the target learnt the clusters.

    Returns
    -------
    Verdict
        The verdict with further sentences. A verdict that transfer is better, or that nothing was
        compared, is returned unchanged.
    """
    if found.outcome not in ("behind", "even"):
        return found
    causes = probable_causes(pretext, cluster, transfer)
    if causes:
        lead = "This run shows a probable cause:" if len(causes) == 1 else "Probable causes:"
        sentences = [lead, *causes]
    else:
        parts = {
            "the pretext task": pretext,
            "the size of the clusters": cluster,
            "the target's training": transfer,
        }
        checked = [f"of {name}" for name, part in parts.items() if part is not None]
        sentences = []
        if checked:
            *some, last = checked
            names = f"{', '.join(some)} and {last}" if some else last
            sentences.append(f"The run shows no cause: the checks {names} found nothing.")
        remedies = ["cluster another layer (features.layer)"] if pretext is not None else []
        remedies += ["change cluster.n_clusters"] if cluster is not None else []
        *some, last = [*remedies, "raise transfer.training.epochs"]
        advice = f"{', '.join(some)}, or {last}" if some else last
        sentences.append(
            f"{advice[0].upper()}{advice[1:]}; and compare several seeds (ktfast compare) before "
            "you trust a small difference."
        )
    return replace(found, sentences=[*found.sentences, *sentences])


def probable_causes(
    pretext: TrainingResult | None,
    cluster: ClusterSummary | None,
    transfer: TrainingResult | None,
) -> list[str]:
    """List what can keep transfer from being better than random weights, in the order of the run.

    Parameters
    ----------
    pretext, transfer : TrainingResult, optional
        Summaries of the trainings.
    cluster : ClusterSummary, optional
        Summary of the stage cluster.

    Returns
    -------
    list of str
        One sentence for each cause.
    """
    causes = []
    if pretext is not None and pretext.at_chance:
        causes.append(
            "The pretext task was not learnt, so that the pseudo-labels come from features that "
            "are little better than those of random weights."
        )
    elif pretext is not None and _no_better(pretext.neighbours, pretext.untrained_neighbours):
        causes.append(
            "The pretext task was learnt, but by their nearest neighbours the features are no "
            "better than those of random weights."
        )
    median = None if cluster is None else cluster.median
    if cluster is not None and median is not None and median < FEW_IMAGES:
        causes.append(
            f"Half of the {amount(cluster.used)} clusters hold at most "
            f"{amount(median)} image{'' if median == 1 else 's'}, "
            "which is little to learn a class from: lower cluster.n_clusters, or give more images."
        )
    guess = 1 / cluster.used if cluster is not None and cluster.used else None
    accuracy = None if transfer is None else transfer.accuracy
    if guess is not None and accuracy is not None and accuracy < _limit(guess):
        causes.append(
            f"The target hardly learnt its pseudo-labels: at the end of its training, the target "
            f"is right on {percent(accuracy)} of the training images (guessing: "
            f"{percent(guess, 2)}). Raise transfer.training.epochs, or change "
            "transfer.training.learning_rate."
        )
    return causes


def _no_better(trained: float | None, untrained: float | None) -> bool:
    return trained is not None and untrained is not None and trained <= untrained


def _limit(guess: float) -> float:
    """Least accuracy of a network that has learnt something."""
    return min(LEARNT * guess, guess + (1 - guess) / 4)
