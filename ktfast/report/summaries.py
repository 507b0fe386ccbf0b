"""Typed results of the stages that the report shows, except evaluate and voc.

A value that is missing or has an unexpected type becomes None, so that the report of a damaged or
older run still shows the rest. The results of evaluate and voc are in `ktfast.evaluation.results`.
"""

from dataclasses import dataclass, field, fields

from ktfast.evaluation.json_values import Json, mapping, number, numbers
from ktfast.evaluation.results import ClusterQuality


@dataclass(frozen=True)
class StageResult:
    """The part of a `result.json` that all stages share.

    Attributes
    ----------
    started : float, optional
        Seconds since 1970.
    seconds : float, optional
        Duration of the stage.
    rate : float, optional
        Throughput.
    unit : str
        Unit of the throughput.
    summary : dict, optional
        What the stage found; each stage has its own keys.
    fingerprint : str
        Hash of what the stage left.
    inputs : dict of str to str
        Fingerprint of each input that the stage read.
    made_from : dict of str to str
        The stage that made the input, for each input that a stage made.
    settings : dict
        Every option on which the result depends.
    """

    started: float | None
    seconds: float | None
    rate: float | None
    unit: str
    summary: Json | None
    fingerprint: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    made_from: dict[str, str] = field(default_factory=dict)
    settings: Json = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Json) -> "StageResult":
        """Read the content of a `result.json`."""
        throughput, summary = mapping(value.get("throughput")), value.get("summary")
        return cls(
            started=number(value.get("started")),
            seconds=number(value.get("seconds")),
            rate=number(throughput.get("value")),
            unit=str(throughput.get("unit", "")),
            summary=summary if isinstance(summary, dict) else None,
            fingerprint=str(value.get("fingerprint", "")),
            inputs={str(k): str(v) for k, v in mapping(value.get("inputs")).items()},
            made_from={str(k): str(v) for k, v in mapping(value.get("from")).items()},
            settings=mapping(value.get("config")),
        )


@dataclass(frozen=True)
class PreparedImages:
    """Summary of the stage prepare for one image folder.

    Attributes
    ----------
    folder : str
        The image folder.
    images, classes : float, optional
        Number of images used, and of their classes.
    skipped : list of pairs of str
        Path and reason for every image that could not be used.
    others : list of pairs of str
        Path and reason for the first files that are no images.
    other_counts : dict of str to int
        Number of files that are no images, by suffix.
    """

    folder: str
    images: float | None
    classes: float | None
    skipped: list[tuple[str, str]]
    others: list[tuple[str, str]]
    other_counts: dict[str, int]

    @classmethod
    def from_json(cls, value: Json) -> "PreparedImages":
        """Read the summary of a `result.json`."""
        others = mapping(value.get("others"))
        counts = numbers(others.get("by_suffix"))
        return cls(
            folder=str(value.get("folder", "")),
            images=number(value.get("images")),
            classes=number(value.get("classes")),
            skipped=_pairs(value.get("skipped")),
            others=_pairs(others.get("listed")),
            other_counts={key: int(count) for key, count in counts.items()},
        )


def _pairs(value: object) -> list[tuple[str, str]]:
    """The entries of a list that are pairs, as text."""
    rows = value if isinstance(value, list) else []
    return [(str(row[0]), str(row[1])) for row in rows if isinstance(row, list) and len(row) == 2]


@dataclass(frozen=True)
class LearntFeatures:
    """How well the target learnt the teacher's features, beside an untrained network.

    Attributes
    ----------
    measure : str
        What was measured, such as "cosine similarity".
    trained : float
        Value of the target.
    untrained : float, optional
        Value of the same network with random weights.
    images : float, optional
        Number of images.
    measured_on : str
        Role of the images: "test", or "transfer" for the images that the target learnt from.
    features : str
        Fingerprint of the features; empty for features of the user.
    """

    measure: str
    trained: float
    untrained: float | None
    images: float | None
    measured_on: str
    features: str

    @classmethod
    def from_json(cls, value: object) -> "LearntFeatures | None":
        """Read the entry "held_out" of a summary; None without a measured value."""
        known = mapping(value)
        trained = number(known.get("trained"))
        if trained is None:
            return None
        return cls(
            measure=str(known.get("measure", "measure")),
            trained=trained,
            untrained=number(known.get("untrained")),
            images=number(known.get("images")),
            measured_on=str(known.get("measured_on", "")),
            features=str(known.get("features", "")),
        )


@dataclass(frozen=True)
class TrainingResult:
    """Summary of a stage that trains a network: pretext, transfer or a baseline.

    Attributes
    ----------
    accuracy : float, optional
        Accuracy of the network. For a pretext task: on held-out images.
    chance : float, optional
        Accuracy of guessing; only pretext tasks have one.
    at_chance : bool
        Whether the network was no better than guessing on the images of the last training steps.
    remedy : str
        What to change in a pretext task at chance; empty for other trainings.
    task : str
        Name of the pretext task.
    measure : str
        What was measured on held-out images.
    value : float, optional
        The measured value.
    neighbours, untrained_neighbours : float, optional
        Accuracy of the nearest neighbours of the network's features after and before the training;
        only networks of a pretext task have them.
    agreement, untrained_agreement : float, optional
        Agreement of two clusterings of the network's features after and before the training; only
        networks that learnt a pretext task from images without classes have them.
    held_out : LearntFeatures, optional
        How well the target learnt features; None for a network that learnt anything else.
    """

    accuracy: float | None
    chance: float | None
    at_chance: bool = False
    task: str = "Jigsaw++"
    measure: str = "accuracy"
    value: float | None = None
    neighbours: float | None = None
    untrained_neighbours: float | None = None
    agreement: float | None = None
    untrained_agreement: float | None = None
    held_out: LearntFeatures | None = None
    remedy: str = ""

    @classmethod
    def from_json(cls, value: Json) -> "TrainingResult":
        """Read the summary of a `result.json`."""
        accuracy, chance = number(value.get("accuracy")), number(value.get("chance"))
        measure = str(value.get("measure", cls.measure))
        neighbours, agreement = (mapping(value.get(key)) for key in ("neighbours", "agreement"))
        return cls(
            accuracy,
            chance,
            at_chance=value.get("at_chance") is True,
            task=str(value.get("task", cls.task)),  # an earlier version had one task only
            measure=measure,
            value=number(value.get(measure)),
            neighbours=number(neighbours.get("trained")),
            untrained_neighbours=number(neighbours.get("untrained")),
            agreement=number(agreement.get("trained")),
            untrained_agreement=number(agreement.get("untrained")),
            held_out=LearntFeatures.from_json(value.get("held_out")),
            remedy=str(value.get("remedy", "")),
        )


@dataclass(frozen=True)
class ClusterSummary:
    """Summary of the stage cluster.

    Attributes
    ----------
    n_clusters, used : float, optional
        Number of clusters, and of clusters with an image.
    largest, smallest, median : float, optional
        Images per cluster.
    inertia : float, optional
        Sum of the squared distances to the nearest centres.
    n_iter : float, optional
        Iterations of K-means.
    quality : ClusterQuality
        Agreement with the true classes.
    untrained : ClusterQuality
        Agreement of the clusters of an untrained network; the stage evaluate computes it.
    """

    n_clusters: float | None = None
    used: float | None = None
    largest: float | None = None
    smallest: float | None = None
    median: float | None = None
    inertia: float | None = None
    n_iter: float | None = None
    quality: ClusterQuality = field(default_factory=ClusterQuality)
    untrained: ClusterQuality = field(default_factory=ClusterQuality)

    @classmethod
    def from_json(cls, value: Json, untrained: ClusterQuality | None) -> "ClusterSummary":
        """Read the summary of a `result.json`, and add the clusters of an untrained network."""
        return cls(
            n_clusters=number(value.get("n_clusters")),
            used=number(value.get("used")),
            largest=number(value.get("largest")),
            smallest=number(value.get("smallest")),
            median=number(value.get("median")),
            inertia=number(value.get("inertia")),
            n_iter=number(value.get("n_iter")),
            quality=ClusterQuality.from_json(value),
            untrained=untrained or ClusterQuality(),
        )


@dataclass(frozen=True)
class MetricsRow:
    """One line of `metrics.jsonl`: the state of a training after a number of steps.

    Attributes
    ----------
    step, epoch : float, optional
        Progress of the training.
    loss, accuracy : float, optional
        Means over the batches since the last line.
    images_per_second : float, optional
        Speed of the training.
    loader_wait : float, optional
        Fraction of the time that the training waited for images.
    neighbours : float, optional
        Accuracy of the nearest neighbours of the network's features, at this step. Only rows that
        hold no other figure have one.
    agreement : float, optional
        Agreement of two clusterings of the network's features, at this step, likewise.
    """

    step: float | None = None
    epoch: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    images_per_second: float | None = None
    loader_wait: float | None = None
    neighbours: float | None = None
    agreement: float | None = None

    @classmethod
    def from_json(cls, value: Json) -> "MetricsRow":
        """Read one line."""
        return cls(**{field.name: number(value.get(field.name)) for field in fields(cls)})
