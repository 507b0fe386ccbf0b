"""Sections of the report other than probes and PASCAL VOC, as typed values for the template."""

import json
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from ktfast.evaluation.layer_choice import LayerChoice, choose_layers
from ktfast.report import plots
from ktfast.report.causes import with_causes
from ktfast.report.clusters import cluster_sizes
from ktfast.report.formats import amount, duration, moment, percent
from ktfast.report.groups import Figure, groups_figures, groups_verdict, is_unlabelled
from ktfast.report.objective import (
    CLUSTERS,
    facts_of,
    learnt_features,
    learnt_finding,
    model_names,
    tile,
    words_of,
)
from ktfast.report.reading import RunReader
from ktfast.report.summaries import ClusterSummary, MetricsRow, StageResult, TrainingResult
from ktfast.report.unlabelled import unlabelled_tiles
from ktfast.report.verdict import Verdict, verdict
from ktfast.report.voc import PROTOCOLS

SKIPPED_SHOWN = 50
_TRAININGS = {
    "pretext": "Pretext task",
    "baseline_pretext": "Baseline: pretext task with the target network",
    "baseline_labels": "Baseline: true labels",
}
_PIPELINE = ("prepare", "pretext", "features", "cluster", "transfer", "evaluate")


@dataclass(frozen=True)
class ResultSection:
    """The verdict and the numbers at the top of the page."""

    verdict: Verdict
    figures: list[Figure]


def result_section(run: RunReader) -> ResultSection:
    """The verdict and the numbers at the top of the page."""
    if is_unlabelled(run, run.options()):
        return _groups_section(run)
    stale = run.stale()
    evaluation = None if "evaluate" in stale else run.evaluation()
    cluster = None if "cluster" in stale else run.clusters()
    pretext = None if "pretext" in stale else run.training("pretext")
    why = "the evaluation was not run"
    if "evaluate" in stale:
        why = f"the evaluation is stale, because {stale['evaluate']}"
    test = run.prepared().get("test")
    linear, knn = LayerChoice(), LayerChoice()
    if evaluation is not None:
        linear = choose_layers(evaluation.linear, evaluation.linear_held_out)
        knn = choose_layers(evaluation.knn, evaluation.knn_held_out)
    first = [_accuracy_figure("Linear probe", linear), _accuracy_figure("Nearest neighbours", knn)]
    unlabelled = None if "unlabelled" in stale else run.unlabelled()
    if unlabelled is not None and not linear.chosen:
        first = [Figure(*row) for row in unlabelled_tiles(unlabelled)]
    found = verdict(
        evaluation,
        cluster,
        pretext,
        None if test is None else test.images,
        why_not=why,
        unlabelled=unlabelled,
        objective=run.objective(),
        learnt=learnt_features(run),
    )
    transfer = None if "transfer" in stale else run.training("transfer")
    return ResultSection(
        verdict=with_causes(
            found,
            pretext if _learns_pretext(run) else None,
            cluster if run.objective() == CLUSTERS else None,
            transfer,
        ),
        figures=[
            *(_marked(figure, stale.get("evaluate")) for figure in first),
            _marked(_pretext_figure(pretext), stale.get("pretext")),
            _objective_figure(run, cluster, stale),
            _time_figure(run),
        ],
    )


def _learns_pretext(run: RunReader) -> bool:
    """Whether the features come from the network of the stage pretext, as far as is known."""
    config = run.options()
    return config is None or (config.features.learns and config.cluster.features is None)


def _groups_section(run: RunReader) -> ResultSection:
    """The verdict and the numbers of a run without labelled test images."""
    stale = run.stale()
    clusters = None if "cluster" in stale else run.clusters()
    pretext = None if "pretext" in stale else run.training("pretext")
    transfer = None if "transfer" in stale else run.training("transfer")
    n_images = int(cluster_sizes(run).sum())
    why = "the images were not clustered"
    if "cluster" in stale:
        why = f"the clusters are stale, because {stale['cluster']}"
    figures = [
        _marked(figure, stale.get("cluster"))
        for figure in groups_figures(clusters, n_images, transfer)
    ]
    unlabelled = None if "unlabelled" in stale else run.unlabelled()
    if unlabelled is not None:
        figures += [Figure(*row) for row in unlabelled_tiles(unlabelled)]
    if run.objective() != CLUSTERS:
        figures.append(_objective_figure(run, clusters, stale))
    if pretext is not None or "pretext" in stale:
        figures.append(_marked(_pretext_figure(pretext), stale.get("pretext")))
    return ResultSection(
        verdict=groups_verdict(
            clusters,
            n_images,
            pretext,
            transfer,
            why_not=why,
            unlabelled=unlabelled,
            more=learnt_finding(run.objective(), learnt_features(run)),
        ),
        figures=[*figures, _time_figure(run)],
    )


def _marked(figure: Figure, reason: str | None) -> Figure:
    """Replace a figure by a dash and the word "stale" if there is a reason why it is stale."""
    return figure if reason is None else Figure(figure.title, "–", "stale")


def _accuracy_figure(title: str, choice: LayerChoice) -> Figure:
    """Accuracy of the transferred network at its chosen layer, beside random weights."""
    transfer, random = choice.get("transfer"), choice.get("random")
    beside = "not run" if random is None else f"random weights {percent(random[1])}"
    return Figure(title, percent(None if transfer is None else transfer[1]), beside)


def _pretext_figure(pretext: TrainingResult | None) -> Figure:
    if pretext is None:
        return Figure("Pretext task", "–", "not run")
    title = f"{pretext.task}: {pretext.measure}"
    if pretext.accuracy is None and pretext.value is not None:
        return Figure(title, amount(pretext.value), "on held-out images")
    return Figure(title, percent(pretext.accuracy), f"chance {percent(pretext.chance, 2)}")


def _objective_figure(
    run: RunReader, cluster: ClusterSummary | None, stale: dict[str, str]
) -> Figure:
    """What the target learnt: the agreement of the clusters, or a measure of learnt features."""
    if run.objective() == CLUSTERS:
        return _marked(_cluster_figure(cluster), stale.get("cluster"))
    figure = Figure(*tile(run.objective(), learnt_features(run)))
    return _marked(figure, stale.get("transfer"))


def _cluster_figure(cluster: ClusterSummary | None) -> Figure:
    title = "Normalised mutual information"
    if cluster is None:
        return Figure(title, "–", "not run")
    nmi, untrained = cluster.quality.nmi, cluster.untrained.nmi
    used = f"{amount(cluster.used)} clusters used"
    if nmi is None:  # without labels
        return Figure("Clusters", amount(cluster.used), f"of {amount(cluster.n_clusters)} used")
    beside = used if untrained is None else f"untrained network {untrained:.3f}"
    return Figure(title, f"{nmi:.3f}", beside)


def _time_figure(run: RunReader) -> Figure:
    results = [run.result(stage) for stage in run.stages()]
    known = [r.seconds for r in results if r is not None and r.seconds is not None]
    finished = f"{len(known)} stages" if len(known) != 1 else "1 stage"
    return Figure("Time", duration(sum(known)) if known else "–", finished)


@dataclass(frozen=True)
class Training:
    """Curves and speed of one training.

    Attributes
    ----------
    title : str
        Printed name.
    plots : list of Markup
        Loss and accuracy over the epochs, as SVG.
    steps, epochs : float, optional
        Length of the training.
    images_per_second : float, optional
        Median speed.
    wait : float, optional
        Mean fraction of the time that the training waited for images.
    facts : list of pairs of str
        Name and value of what else is known, such as the objective.
    """

    title: str
    plots: list[Markup]
    steps: float | None
    epochs: float | None
    images_per_second: float | None
    wait: float | None
    facts: list[tuple[str, str]]


def trainings_section(run: RunReader) -> list[Training]:
    """Curves and speed of each training in `metrics.jsonl`."""
    return [_training(run, stage, rows) for stage, rows in run.metrics().items()]


def _training(run: RunReader, stage: str, rows: list[MetricsRow]) -> Training:
    summary = run.training(stage)
    chance = None if summary is None else summary.chance
    rates = [row.images_per_second for row in rows if row.images_per_second is not None]
    waits = [row.loader_wait for row in rows if row.loader_wait is not None]
    objective = run.objective()
    facts = facts_of(objective, learnt_features(run)) if stage == "transfer" else []
    return Training(
        title=_training_title(stage, objective) + (" (stale)" if stage in run.stale() else ""),
        plots=[Markup(plot) for plot in plots.training_curves(rows, chance=chance, name=stage)],
        steps=rows[-1].step,
        epochs=rows[-1].epoch,
        images_per_second=float(np.median(rates)) if rates else None,
        wait=float(np.mean(waits)) if waits else None,
        facts=facts,
    )


def _training_title(stage: str, objective: str) -> str:
    kind, _, rest = stage.partition("_")
    names = model_names(objective)
    if stage == "transfer":
        return words_of(objective).training
    if kind == "retrain" and "_" in rest:
        model, _, layer = rest.partition("_")
        return f"Layers above {layer} trained anew: {names.get(model, model)}"
    if kind == "finetune":
        return f"Whole network fine-tuned on labels: {rest}"
    if kind == "voc" and "_" in rest:
        protocol, _, model = rest.partition("_")
        return f"PASCAL VOC, {protocol}: {names.get(model, model)}"
    return _TRAININGS.get(stage, stage)


@dataclass(frozen=True)
class StageRow:
    """One stage in the table of stages.

    Attributes
    ----------
    name, state, started, rate, unit : str
        Printed values.
    seconds : float, optional
        Duration of the stage.
    share : float
        Duration in percent of the longest stage.
    """

    name: str
    state: str
    started: str
    seconds: float | None
    share: float
    rate: str
    unit: str


def stages_section(run: RunReader) -> list[StageRow]:
    """Time and throughput of each stage in the order of the pipeline; also stages not run."""
    results = {stage: run.result(stage) for stage in run.stages()}
    times = [r.seconds for r in results.values() if r is not None and r.seconds]
    longest = max(times, default=1.0)
    states = {stage: f"stale: {reason}" for stage, reason in run.stale().items()}
    for stage, result in results.items():
        states.setdefault(stage, "begun, not finished" if result is None else "done")
    rows = [_stage_row(stage, result, states[stage], longest) for stage, result in results.items()]
    begun = {stage.split("/")[0] for stage in results}
    absent = {"cluster": "not needed"} if run.objective() != CLUSTERS else {}
    rows += [
        _stage_row(s, None, absent.get(s, "not run"), longest) for s in _PIPELINE if s not in begun
    ]
    return sorted(rows, key=lambda row: _position(row.name))


def _position(stage: str) -> float:
    """Position of a stage in the pipeline: baselines before the evaluation, VOC at the end."""
    kind = stage.split("/")[0]
    if kind == "voc":
        return len(_PIPELINE)
    return _PIPELINE.index(kind) if kind in _PIPELINE else _PIPELINE.index("evaluate") - 0.5


def _stage_row(stage: str, result: StageResult | None, state: str, longest: float) -> StageRow:
    found = result or StageResult(None, None, None, "", None)
    return StageRow(
        name=stage,
        state=state,
        started=moment(found.started),
        seconds=found.seconds,
        share=round(100 * (found.seconds or 0) / longest, 2),
        rate=amount(found.rate),
        unit=found.unit,
    )


@dataclass(frozen=True)
class ImageSet:
    """One prepared image folder, with the first files that were not used.

    Attributes
    ----------
    skipped : list of pair of str
        Path and reason of the first images that could not be used.
    others : list of pair of str
        Path and reason of the first files that are no images.
    other_counts : list of tuple
        Suffix and number of the files that are no images, the most frequent suffix first.
    """

    name: str
    folder: str
    images: float | None
    classes: float | None
    n_skipped: int
    skipped: list[tuple[str, str]]
    n_others: int
    others: list[tuple[str, str]]
    other_counts: list[tuple[str, int]]


def images_section(run: RunReader) -> list[ImageSet]:
    """Images used and left out, with the reasons, for each prepared set."""
    return [
        ImageSet(
            name=name,
            folder=found.folder,
            images=found.images,
            classes=found.classes,
            n_skipped=len(found.skipped),
            skipped=found.skipped[:SKIPPED_SHOWN],
            n_others=sum(found.other_counts.values()),
            others=found.others[:SKIPPED_SHOWN],
            other_counts=sorted(found.other_counts.items(), key=lambda item: (-item[1], item[0])),
        )
        for name, found in run.prepared().items()
    ]


def copies_section(run: RunReader) -> list[str]:
    """Sentences on test images that are copies of images that were learnt from."""
    evaluation = run.evaluation()
    own = [] if evaluation is None else [evaluation, *evaluation.sets.values()]
    found = [copies for summary in own for copies in summary.copies]
    for protocol in PROTOCOLS:
        summary = run.voc(protocol)
        found += [] if summary is None else summary.copies
    return list(dict.fromkeys(copies.sentence() for copies in found))


def environment_section(run: RunReader) -> list[tuple[str, str]]:
    """Name and value of each entry of `environment.json`; inner objects are flattened."""
    rows: list[tuple[str, str]] = []
    for key, value in (run.environment() or {}).items():
        if isinstance(value, dict):
            rows += [(str(name), str(item)) for name, item in value.items()]
        else:
            rows.append((str(key), value if isinstance(value, str) else json.dumps(value)))
    return rows
