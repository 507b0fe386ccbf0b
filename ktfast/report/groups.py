"""The verdict and the top figures of the report for a run without labelled test images."""

from collections.abc import Sequence
from dataclasses import dataclass

from ktfast.config import Config
from ktfast.evaluation.unlabelled_result import UnlabelledMeasures
from ktfast.report.formats import amount, percent
from ktfast.report.reading import RunReader
from ktfast.report.summaries import ClusterSummary, TrainingResult
from ktfast.report.unlabelled import unlabelled_headline
from ktfast.report.verdict import Verdict, other_findings


@dataclass(frozen=True)
class Figure:
    """A number at the top of the page, and a second number to compare it with."""

    title: str
    value: str
    beside: str


def is_unlabelled(run: RunReader, config: Config | None) -> bool:
    """Say whether a run has no labelled test images, so that no evaluation can follow.

    Parameters
    ----------
    run : RunReader
        The run.
    config : Config, optional
        Options of the run; None if they are unknown.

    Returns
    -------
    bool
        Whether no result of the run uses labels.
    """
    stages = run.stages()
    if "evaluate" in stages or "prepare/test" in stages:
        return False
    return "cluster" in stages if config is None else config.data.test is None


def groups_verdict(
    clusters: ClusterSummary | None,
    n_images: int,
    pretext: TrainingResult | None,
    transfer: TrainingResult | None,
    *,
    why_not: str,
    unlabelled: UnlabelledMeasures | None = None,
    more: Sequence[str] = (),
) -> Verdict:
    """Say what groups K-means found, for a run without labelled test images.

    Parameters
    ----------
    clusters : ClusterSummary, optional
        Summary of the stage cluster.
    n_images : int
        Number of images that have a cluster.
    pretext, transfer : TrainingResult, optional
        Summaries of the trainings.
    why_not : str
        Why the run has no clusters; not used if it has clusters.
    unlabelled : UnlabelledMeasures, optional
        Measures of the clusters that need no labels.
    more : sequence of str
        Further sentences, such as how well the target learnt features.

    Returns
    -------
    Verdict
        The conclusion. Its outcome is "open", because nothing was compared.
    """
    findings = [*more, *other_findings(clusters, pretext)]
    if clusters is None:
        return Verdict("open", f"No groups yet: {why_not}", findings)
    used, asked = clusters.used, clusters.n_clusters
    headline = f"{amount(n_images or None)} images in {amount(used)} groups"
    sizes = (
        f"The groups are clusters of K-means. They hold {amount(clusters.smallest)} to "
        f"{amount(clusters.largest)} images, half of them at most {amount(clusters.median)}."
    )
    sentences = [sizes]
    if used is not None and asked is not None and used < asked:
        sentences.append(f"{amount(asked - used)} of {amount(asked)} clusters have no image.")
    if transfer is not None and transfer.accuracy is not None:
        sentences.append(
            "At the end of its training, the target network names the cluster of "
            f"{percent(transfer.accuracy)} of its training images."
        )
    if unlabelled is not None:
        measured, others = unlabelled_headline(unlabelled)
        sentences += [f"{measured}.", *others]
    caveat = (
        "The run has no labelled test images (data.test), so it is not measured whether the groups "
        "are those that you look for: look at the images of each group below. "
        "cluster/assignments.csv lists the group of every image."
    )
    return Verdict("open", headline, [*sentences, *findings], caveat)


def groups_figures(
    clusters: ClusterSummary | None, n_images: int, transfer: TrainingResult | None
) -> list[Figure]:
    """The figures at the top of the page, for a run without labelled test images.

    Parameters
    ----------
    clusters : ClusterSummary, optional
        Summary of the stage cluster.
    n_images : int
        Number of images that have a cluster.
    transfer : TrainingResult, optional
        Summary of the stage transfer.

    Returns
    -------
    list of Figure
        Images, groups, and how well the target network learnt the groups.
    """
    if clusters is None:
        return [Figure(title, "–", "not run") for title in ("Images in groups", "Group size")]
    sizes = f"{amount(clusters.smallest)} to {amount(clusters.largest)} images"
    figures = [
        Figure("Images in groups", amount(n_images or None), f"{amount(clusters.used)} groups"),
        Figure("Median group size", amount(clusters.median), sizes),
    ]
    if transfer is not None and transfer.accuracy is not None:
        guess = percent(1 / clusters.used, 2) if clusters.used else "–"
        figures.append(Figure("Groups learnt", percent(transfer.accuracy), f"guessing {guess}"))
    return figures
