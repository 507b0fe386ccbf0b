"""The verdict of the report: whether transfer beats random weights, in one paragraph."""

import math
from dataclasses import dataclass, field

from ktfast.evaluation.layer_choice import LayerChoice, choose_layers
from ktfast.evaluation.results import EvaluationSummary, Layers
from ktfast.evaluation.unlabelled_result import UnlabelledMeasures
from ktfast.report.formats import amount, percent
from ktfast.report.objective import learnt_finding, words_of
from ktfast.report.settled import settled_finding
from ktfast.report.summaries import ClusterSummary, LearntFeatures, TrainingResult
from ktfast.report.unlabelled import unlabelled_headline

ONE_SEED = "This is one run with one seed."


@dataclass(frozen=True)
class Verdict:
    """What the run shows.

    Attributes
    ----------
    outcome : str
        "ahead", "behind", "even" (the difference is within the noise) or "open" (nothing to
        compare).
    headline : str
        One short sentence.
    sentences : list of str
        The paragraph.
    caveat : str
        What limits the conclusion; may be empty.
    """

    outcome: str
    headline: str
    sentences: list[str] = field(default_factory=list)
    caveat: str = ""


def verdict(
    evaluation: EvaluationSummary | None,
    cluster: ClusterSummary | None,
    pretext: TrainingResult | None,
    n_test: float | None,
    *,
    why_not: str = "the evaluation was not run",
    unlabelled: UnlabelledMeasures | None = None,
    objective: str = "clusters",
    learnt: LearntFeatures | None = None,
) -> Verdict:
    """Say whether the transferred network beats random weights, and by how much.

    Parameters
    ----------
    evaluation : EvaluationSummary, optional
        Summary of the stage evaluate.
    cluster : ClusterSummary, optional
        Summary of the stage cluster.
    pretext : TrainingResult, optional
        Summary of the stage pretext.
    n_test : float, optional
        Number of test images, from which the size of the noise follows.
    why_not : str
        Why the run has no evaluation; not used if it has one.
    unlabelled : UnlabelledMeasures, optional
        Measures that need no labels. If there are no probes, the headline states these measures.
    objective : str
        Value of `transfer.objective`.
    learnt : LearntFeatures, optional
        How well the transferred network learnt features.

    Returns
    -------
    Verdict
        The conclusion.
    """
    others = [*learnt_finding(objective, learnt), *other_findings(cluster, pretext)]
    if evaluation is not None and evaluation.headline is not None:
        finding = settled_finding(evaluation.headline, n_test)
        if finding is not None:
            outcome, headline, sentences = finding
            return Verdict(outcome, headline, [*sentences, *others], ONE_SEED)
    if unlabelled is not None and (evaluation is None or not evaluation.linear):
        headline, sentences = unlabelled_headline(unlabelled)
        return Verdict("open", headline, [*sentences, *others])
    linear = {} if evaluation is None else evaluation.linear
    choice = choose_layers(linear, {} if evaluation is None else evaluation.linear_held_out)
    transfer, random = choice.get("transfer"), choice.get("random")
    if evaluation is not None and evaluation.models and "transfer" not in evaluation.models:
        return _of_files(evaluation, choice)
    if evaluation is None or transfer is None:
        reason = why_not if evaluation is None else "the evaluation ran none"
        return Verdict(
            "open",
            "Not evaluated: it is unknown how good the transferred network is",
            [f"There is no linear probe of the transferred network ({reason}).", *others],
        )
    first = (
        f"A linear probe on the frozen layers of the transferred network reaches "
        f"{percent(transfer[1])} {evaluation.metric} at the layer {transfer[0]}"
    )
    if random is None:
        return Verdict(
            "open",
            "No baseline: the transfer was not compared with random weights",
            [f"{first}. Without the random baseline, this accuracy says little.", *others],
        )
    error = _standard_error(transfer[1], random[1], n_test)
    outcome, headline = _headline(transfer[1] - random[1], error)
    ahead, shared = _layers_ahead(linear["transfer"], linear["random"])
    sentences = [
        f"{first}. The same network with random weights reaches {percent(random[1])} "
        f"({random[0]}). Transfer is ahead at {ahead} of {shared} layers."
    ]
    sentences += [*_baselines(choice, transfer[1], words_of(objective).learnt), *others]
    return Verdict(outcome, headline, sentences, _caveat(choice, error, n_test))


def _of_files(evaluation: EvaluationSummary, choice: LayerChoice) -> Verdict:
    """What a run shows that probed files of weights, and has no transferred network."""
    n = len(evaluation.models)
    headline = f"Probes of {n} network{'' if n == 1 else 's'} from files"
    found = [
        f"{model} reaches {percent(accuracy)} at the layer {layer}"
        for model, (layer, accuracy) in choice.chosen.items()
    ]
    if not found:
        return Verdict("open", headline, ["The tables below show their accuracies."])
    sentence = f"A linear probe gives the {evaluation.metric}: {', '.join(found)}."
    return Verdict("open", headline, [sentence])


def _headline(gap: float, error: float | None) -> tuple[str, str]:
    points = f"{abs(100 * gap):.1f} points"
    if error is not None and abs(gap) < 2 * error:
        return "even", f"Transfer and random weights cannot be told apart ({100 * gap:+.1f} points)"
    if gap > 0:
        return "ahead", f"Transfer beat random weights by {points}"
    return "behind", f"Transfer did not beat random weights: it is {points} behind"


def _baselines(choice: LayerChoice, transfer: float, learnt: str) -> list[str]:
    sentences = []
    pretext, labels = choice.get("pretext"), choice.get("labels")
    if pretext is not None:
        gap = 100 * (transfer - pretext[1])
        effect = f"gained {gap:.1f}" if gap >= 0 else f"lost {-gap:.1f}"
        sentences.append(
            f"Learning the pretext task with the target network itself gives {percent(pretext[1])} "
            f"({pretext[0]}), so going through {learnt} {effect} points."
        )
    if labels is not None:
        sentences.append(f"Training on the true labels gives {percent(labels[1])} ({labels[0]}).")
    return sentences


def other_findings(cluster: ClusterSummary | None, pretext: TrainingResult | None) -> list[str]:
    """What the puzzle network and the clusters show, as sentences.

    Parameters
    ----------
    cluster : ClusterSummary, optional
        Summary of the stage cluster.
    pretext : TrainingResult, optional
        Summary of the stage pretext.

    Returns
    -------
    list of str
        The sentences.
    """
    sentences = []
    if pretext is not None and pretext.accuracy is not None and pretext.chance is not None:
        sentences.append(
            f"The network that learnt the pretext task ({pretext.task}) is right on "
            f"{percent(pretext.accuracy)} of held-out images (chance {percent(pretext.chance, 2)})."
        )
        if pretext.at_chance:
            followers = "the transfer that follows from the features"
            if cluster is not None:
                followers = "the clusters and the transfer that follow from the features"
            advice = f"{pretext.remedy}." if pretext.remedy else "log.txt says what helps."
            sentences.append(
                "The network was hardly better than guessing when its training on the pretext task "
                f"ended. The network's features, and {followers}, say little about {pretext.task}. "
                f"{advice}"
            )
    if pretext is not None:
        sentences += _features_finding(pretext)
    if cluster is not None and cluster.quality.nmi is not None:
        random = cluster.untrained.nmi
        beside = (
            "" if random is None else f" ({random:.3f} for the clusters of an untrained network)"
        )
        sentences.append(
            f"The clusters agree with the true classes with a normalised mutual information of "
            f"{cluster.quality.nmi:.3f}{beside}."
        )
    return sentences


def _features_finding(pretext: TrainingResult) -> list[str]:
    """Say whether the pretext network's features are better than those of random weights."""
    if pretext.agreement is not None and pretext.untrained_agreement is not None:
        return [
            "Two clusterings of the pretext network's features with different seeds agree with an "
            f"adjusted Rand index of {pretext.agreement:.2f}, and those of random weights of "
            f"{pretext.untrained_agreement:.2f}. The agreement says how clearly features form "
            "groups, not which features are better."
        ]
    trained, untrained = pretext.neighbours, pretext.untrained_neighbours
    if trained is None or untrained is None:
        return []
    sentence = (
        f"The nearest neighbours of the pretext network's features name the class of "
        f"{percent(trained)} of the training images, and those of random weights of "
        f"{percent(untrained)}."
    )
    if trained > untrained:
        return [sentence]
    return [
        f"{sentence} So the pretext task has not made the features better, whatever its accuracy "
        "is: train for another number of epochs, or cluster another layer (features.layer)."
    ]


def _caveat(choice: LayerChoice, error: float | None, n_test: float | None) -> str:
    if choice.by_test:
        caveat = (
            f"{ONE_SEED} Each model is taken at the layer that is best on the test images, so its "
            "accuracy is somewhat too high."
        )
    else:
        caveat = f"{ONE_SEED} Held-out training images chose the layer of each model."
    if error is not None:
        caveat += (
            f" With {amount(n_test)} test images, a difference of up to about "
            f"{200 * error:.1f} points is within the noise."
        )
    return caveat


def _layers_ahead(ours: Layers, theirs: Layers) -> tuple[int, int]:
    """Number of layers at which `ours` is more accurate, and number of layers that both have."""
    pairs = [(ours[layer], theirs[layer]) for layer in ours if layer in theirs]
    return sum(a > b for a, b in pairs), len(pairs)


def _standard_error(a: float, b: float, n_test: float | None) -> float | None:
    """Standard error of the difference of two accuracies on n_test images.

    The formula assumes that each model sees images of its own. Both models see the same images, so
    the true error is usually smaller and the verdict is cautious.
    """
    if not n_test:
        return None
    return math.sqrt((a * (1 - a) + b * (1 - b)) / n_test)
