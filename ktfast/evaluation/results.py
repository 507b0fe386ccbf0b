"""Typed results of evaluations: written by the pipeline, read by the report.

`to_json` returns what the run folder stores. `from_json` reads it back. The readers of stage
summaries (`EvaluationSummary`) skip values of an unexpected type, so that the report
of a damaged or older run still shows the rest. All accuracies are fractions in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ktfast.evaluation.copies import Copies, copies_of
from ktfast.evaluation.headline import Headline
from ktfast.evaluation.json_values import (
    Json,
    mapping,
    number,
    numbers,
    required_mapping,
    required_number,
    required_numbers,
)

ProtocolDetails = dict[str, Any]
"""Details of a protocol by name. Two figures are comparable only if these details agree."""
Layers = dict[str, float]
"""Accuracy by layer."""
ByModel = dict[str, Layers]
"""Accuracy by model and layer."""
Draws = dict[str, list[float]]
"""Accuracy of each draw of the training images, by layer."""
HELD_OUT = ("linear_held_out", "knn_held_out")
"""The keys under which accuracies on held-out training images are stored."""


def by_model(value: object) -> ByModel:
    """Accuracies by model and layer; models without an accuracy are left out."""
    rows = {str(model): numbers(row) for model, row in mapping(value).items()}
    return {model: row for model, row in rows.items() if row}


def draws_of(value: object) -> Draws:
    """Accuracies of several draws by layer; values that are no numbers are left out."""
    return {
        str(layer): [known for item in row if (known := number(item)) is not None]
        for layer, row in mapping(value).items()
        if isinstance(row, list)
    }


def _share_json(row: "LowLabelRow | LowLabelRegime") -> Json:
    """JSON object of a row with a share of the labels; without optional parts that are empty."""
    optional = ("fraction", "count", "draws")
    return {name: value for name, value in vars(row).items() if value or name not in optional}


@dataclass(frozen=True)
class LowLabelRow:
    """One model's linear probes on a share of the labels.

    Attributes
    ----------
    fraction : float, optional
        Fraction of the labels of each class; None if `count` gives the share.
    linear : dict of str to float
        Mean per-class accuracy by layer; the mean over the draws.
    images : int
        Number of training images.
    protocol : dict of str to value
        How the probes were trained.
    count : int, optional
        Labels per class; None if `fraction` gives the share.
    draws : dict of str to list of float
        Accuracy of each draw of the training images, by layer. Empty if an earlier version of
        ktfast, which drew once, wrote the row.
    """

    fraction: float | None
    linear: Layers
    images: int
    protocol: ProtocolDetails
    count: int | None = None
    draws: Draws = field(default_factory=dict)

    def of_draws(self, layer: str) -> list[float]:
        """Accuracies of a layer by draw."""
        single = [self.linear[layer]] if layer in self.linear else []
        return self.draws.get(layer) or single

    def with_draw(self, layer: str, accuracy: float, protocol: ProtocolDetails) -> "LowLabelRow":
        """Give the row with the accuracy of one more draw."""
        found = [*self.of_draws(layer), accuracy]
        draws = {**self.draws, layer: found} if len(found) > 1 else self.draws
        linear = {**self.linear, layer: sum(found) / len(found)}
        return replace(self, linear=linear, protocol=protocol, draws=draws)

    def of(self, layers: Sequence[str], n_draws: int) -> "LowLabelRow":
        """Give the first draws of some layers."""
        found = {layer: self.of_draws(layer)[:n_draws] for layer in layers}
        linear = {layer: sum(values) / len(values) for layer, values in found.items()}
        return replace(self, linear=linear, draws=found if n_draws > 1 else {})

    def to_json(self) -> Json:
        """JSON object of the row."""
        return _share_json(self)

    @classmethod
    def from_json(cls, value: Json) -> "LowLabelRow":
        """Read what `to_json` returned."""
        images = int(required_number(value["images"]))
        linear, protocol = required_numbers(value["linear"]), required_mapping(value["protocol"])
        fraction, count = number(value.get("fraction")), number(value.get("count"))
        draws = draws_of(value.get("draws"))
        return cls(fraction, linear, images, protocol, None if count is None else int(count), draws)


@dataclass(frozen=True)
class ProbeRow:
    """One model's probes: the content of `evaluate/probe-MODEL.json`.

    Attributes
    ----------
    linear, linear_top1 : dict of str to float
        Mean per-class and top-1 accuracy of the linear probe, by layer.
    knn : dict of str to float
        Mean per-class accuracy of nearest neighbours, by layer.
    low_label : list of LowLabelRow
        Linear probes with few labels.
    protocol : dict of str to value
        How the linear probes were trained.
    headline : list of float
        Accuracy of each class by the measure and at the layer that `evaluate.headline` names; empty
        if the option is not set.
    linear_held_out, knn_held_out : dict of str to float
        Mean per-class accuracy on held-out training images, by layer. It chooses the layer at which
        the model is compared with others. Empty if an earlier version of ktfast wrote the row.
    """

    linear: Layers
    linear_top1: Layers
    knn: Layers
    low_label: list[LowLabelRow]
    protocol: ProtocolDetails
    headline: list[float] = field(default_factory=list)
    linear_held_out: Layers = field(default_factory=dict)
    knn_held_out: Layers = field(default_factory=dict)

    def with_share(self, fraction: float | None, count: int | None) -> LowLabelRow | None:
        """Give the probes with a share of the labels; None if there are none."""
        rows = (row for row in self.low_label if (row.fraction, row.count) == (fraction, count))
        return next(rows, None)

    def of(
        self,
        layers: Sequence[str],
        shares: Sequence[tuple[float | None, int | None]],
        n_draws: int,
    ) -> "ProbeRow":
        """Give the probes of some layers, with some shares of the labels.

        Parameters
        ----------
        layers : sequence of str
            The layers, all of which have probes.
        shares : sequence of tuple
            Fraction and count of each share.
        n_draws : int
            Number of draws of each share.

        Returns
        -------
        row : ProbeRow
            The probes, in the order of the arguments.
        """
        few = [row for share in shares if (row := self.with_share(*share)) is not None]

        def kept(known: Layers) -> Layers:
            return {layer: known[layer] for layer in layers if layer in known}

        return replace(
            self,
            linear=kept(self.linear),
            linear_top1=kept(self.linear_top1),
            knn=kept(self.knn),
            low_label=[row.of(layers, n_draws) for row in few],
            linear_held_out=kept(self.linear_held_out),
            knn_held_out=kept(self.knn_held_out),
        )

    def to_json(self) -> Json:
        """JSON object of the row."""
        return {**vars(self), "low_label": [row.to_json() for row in self.low_label]}

    @classmethod
    def from_json(cls, value: Json) -> "ProbeRow":
        """Read what `to_json` returned."""
        low_label = [LowLabelRow.from_json(row) for row in value["low_label"]]
        names = ("linear", "linear_top1", "knn")
        linear, top1, knn = (required_numbers(value[key]) for key in names)
        headline = [required_number(item) for item in value.get("headline", [])]
        held_out = (numbers(value.get(key)) for key in HELD_OUT)
        protocol = required_mapping(value["protocol"])
        return cls(linear, top1, knn, low_label, protocol, headline, *held_out)


@dataclass(frozen=True)
class VariantRow:
    """One model's accuracies by a named variant of the linear probe.

    The content of `evaluate/protocol-VARIANT-MODEL.json`.

    Attributes
    ----------
    linear, top1 : dict of str to float
        Mean per-class and top-1 accuracy by layer.
    protocol : dict of str to value
        What the variant fixes.
    """

    linear: Layers
    top1: Layers
    protocol: ProtocolDetails

    def of(self, layers: Sequence[str]) -> "VariantRow":
        """Give the accuracies of some layers."""
        linear, top1 = ({layer: row[layer] for layer in layers} for row in (self.linear, self.top1))
        return replace(self, linear=linear, top1=top1)

    def to_json(self) -> Json:
        """JSON object of the row."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, value: Json) -> "VariantRow":
        """Read what `to_json` returned."""
        linear, top1 = (required_numbers(value[key]) for key in ("linear", "top1"))
        return cls(linear, top1, required_mapping(value["protocol"]))


@dataclass(frozen=True)
class VariantTable:
    """Accuracies of all models by a named variant of the linear probe.

    Attributes
    ----------
    linear, top1 : dict of str to dict of str to float
        Accuracy by model and layer.
    protocol : dict of str to value
        What the variant fixes.
    """

    linear: ByModel
    top1: ByModel
    protocol: ProtocolDetails = field(default_factory=dict)

    def to_json(self) -> Json:
        """JSON object of the accuracies."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, value: object) -> "VariantTable":
        """Read what `to_json` returned."""
        known = mapping(value)
        linear, top1 = by_model(known.get("linear")), by_model(known.get("top1"))
        return cls(linear, top1, mapping(known.get("protocol")))


@dataclass(frozen=True)
class RetrainedScores:
    """Accuracies of one model whose layers above a frozen layer were trained anew.

    The content of `evaluate/retrained-MODEL-LAYER.json`.

    Attributes
    ----------
    top1, mean_per_class : float
        Accuracies on the test images.
    steps : int
        Steps of the training.
    protocol : dict of str to value
        How the layers were trained.
    """

    top1: float
    mean_per_class: float
    steps: int
    protocol: ProtocolDetails

    def to_json(self) -> Json:
        """JSON object of the scores."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, value: Json) -> "RetrainedScores":
        """Read what `to_json` returned."""
        names = ("top1", "mean_per_class", "steps")
        top1, mean_per_class, steps = (required_number(value[key]) for key in names)
        return cls(top1, mean_per_class, steps, required_mapping(value["protocol"]))


@dataclass(frozen=True)
class Retraining:
    """Accuracies of all models whose layers above a frozen layer were trained anew.

    Attributes
    ----------
    mean_per_class, top1 : dict of str to dict of str to float
        Accuracy by model and last frozen layer.
    protocol : dict of str to value
        How the layers were trained.
    """

    mean_per_class: ByModel
    top1: ByModel
    protocol: ProtocolDetails


@dataclass(frozen=True)
class ClusterQuality:
    """Agreement of clusters with true classes; None without true classes.

    Attributes
    ----------
    nmi : float, optional
        Normalised mutual information.
    purity : float, optional
        Fraction of images that belong to the most frequent class of their cluster.
    """

    nmi: float | None = None
    purity: float | None = None

    def to_json(self) -> Json:
        """JSON object of the scores that are known."""
        return {key: value for key, value in vars(self).items() if value is not None}

    @classmethod
    def from_json(cls, value: object) -> "ClusterQuality":
        """Read what `to_json` returned."""
        known = mapping(value)
        return cls(nmi=number(known.get("nmi")), purity=number(known.get("purity")))


@dataclass(frozen=True)
class LowLabelRegime:
    """Linear probes of all models on the same share of the labels.

    Attributes
    ----------
    fraction : float, optional
        Fraction of the labels of each class; None if `count` gives the share.
    linear : dict of str to dict of str to float
        Mean per-class accuracy by model and layer; the mean over the draws.
    images : int
        Number of training images.
    protocol : dict of str to value
        How the probes were trained.
    count : int, optional
        Labels per class; None if `fraction` gives the share.
    draws : dict of str to dict of str to list of float
        Accuracy of each draw of the training images, by model and layer; empty for a single draw.
    """

    fraction: float | None
    linear: ByModel
    images: int
    protocol: ProtocolDetails = field(default_factory=dict)
    count: int | None = None
    draws: dict[str, Draws] = field(default_factory=dict)

    def to_json(self) -> Json:
        """JSON object of the regime."""
        return _share_json(self)

    @classmethod
    def from_json(cls, value: object) -> "LowLabelRegime | None":
        """Read what `to_json` returned; None without a share or a number of images."""
        known = mapping(value)
        fraction, images = number(known.get("fraction")), number(known.get("images"))
        count = number(known.get("count"))
        if (fraction is None and count is None) or images is None:
            return None
        linear, protocol = by_model(known.get("linear")), mapping(known.get("protocol"))
        draws = {str(name): draws_of(row) for name, row in mapping(known.get("draws")).items()}
        count = None if count is None else int(count)
        return cls(fraction, linear, int(images), protocol, count, draws)


def _regimes(value: object) -> list[LowLabelRegime]:
    """Read a list of regimes; those without a share or a number of images are left out."""
    read = [LowLabelRegime.from_json(item) for item in value] if isinstance(value, list) else []
    return [regime for regime in read if regime is not None]


@dataclass(frozen=True)
class EvaluationSummary:
    """Summary of the stage evaluate.

    Attributes
    ----------
    metric : str
        Name of the accuracy in `linear`, `knn` and `low_label`.
    models : list of str
        The transferred network and its baselines.
    linear, linear_top1, knn : dict of str to dict of str to float
        Accuracy by model and layer, see `ProbeRow`.
    low_label : list of LowLabelRegime
        Linear probes with few labels.
    protocol : dict of str to value
        How the linear probes were trained.
    retraining : Retraining, optional
        Accuracies with the layers above a frozen layer trained anew.
    random_clusters : ClusterQuality, optional
        Quality of the clusters of an untrained network's features.
    headline : Headline, optional
        The comparison that `evaluate.headline` settled before the run.
    linear_held_out, knn_held_out : dict of str to dict of str to float
        Accuracy on held-out training images by model and layer, see `ProbeRow`.
    sets : dict of str to EvaluationSummary
        Probes on each further labelled set of `evaluate.sets`.
    variants : dict of str to VariantTable
        Accuracies by the variants of the linear probe that `evaluate.protocols` names.
    fine_tuned : list of LowLabelRegime
        Networks that were trained as a whole on a share of the labels. The only layer of each
        network has the name "whole network".
    copies : list of Copies
        Test images that are copies of images that the probes or the networks learnt from.
    """

    metric: str = "accuracy"
    models: list[str] = field(default_factory=list)
    linear: ByModel = field(default_factory=dict)
    knn: ByModel = field(default_factory=dict)
    linear_top1: ByModel = field(default_factory=dict)
    low_label: list[LowLabelRegime] = field(default_factory=list)
    protocol: ProtocolDetails = field(default_factory=dict)
    retraining: Retraining | None = None
    random_clusters: ClusterQuality | None = None
    headline: Headline | None = None
    linear_held_out: ByModel = field(default_factory=dict)
    knn_held_out: ByModel = field(default_factory=dict)
    sets: "dict[str, EvaluationSummary]" = field(default_factory=dict)
    variants: dict[str, VariantTable] = field(default_factory=dict)
    fine_tuned: list[LowLabelRegime] = field(default_factory=list)
    copies: list[Copies] = field(default_factory=list)

    def to_json(self) -> Json:
        """JSON object of the summary; without optional parts that were not run."""
        value = dict(vars(self))
        if variants := value.pop("variants"):
            value["variants"] = {name: table.to_json() for name, table in variants.items()}
        if sets := value.pop("sets"):
            value["sets"] = {name: summary.to_json() for name, summary in sets.items()}
        value |= {key: rows for key in HELD_OUT if (rows := value.pop(key))}
        retraining, clusters = value.pop("retraining"), value.pop("random_clusters")
        if (headline := value.pop("headline")) is not None:
            value["headline"] = headline.to_json()
        value["low_label"] = [regime.to_json() for regime in self.low_label]
        if tuned := value.pop("fine_tuned"):
            value["fine_tuned"] = [regime.to_json() for regime in tuned]
        if copies := value.pop("copies"):
            value["copies"] = [found.to_json() for found in copies]
        if retraining is not None:
            value["retrained"] = retraining.mean_per_class
            value["retrained_top1"] = retraining.top1
            value["retrained_protocol"] = retraining.protocol
        if clusters is not None:
            value["random_clusters"] = clusters.to_json()
        return value

    @classmethod
    def from_json(cls, value: Json) -> "EvaluationSummary":
        """Read a stored summary; values of an unexpected type are left out."""
        models = value.get("models")
        retraining = Retraining(
            by_model(value.get("retrained")),
            by_model(value.get("retrained_top1")),
            mapping(value.get("retrained_protocol")),
        )
        clusters = value.get("random_clusters")
        return cls(
            metric=str(value.get("metric", "accuracy")),
            models=[str(name) for name in models] if isinstance(models, list) else [],
            linear=by_model(value.get("linear")),
            knn=by_model(value.get("knn")),
            linear_top1=by_model(value.get("linear_top1")),
            low_label=_regimes(value.get("low_label")),
            fine_tuned=_regimes(value.get("fine_tuned")),
            copies=copies_of(value.get("copies")),
            protocol=mapping(value.get("protocol")),
            retraining=retraining if retraining.mean_per_class else None,
            random_clusters=ClusterQuality.from_json(clusters) if clusters is not None else None,
            headline=Headline.from_json(value.get("headline")),
            linear_held_out=by_model(value.get("linear_held_out")),
            knn_held_out=by_model(value.get("knn_held_out")),
            variants={
                str(name): VariantTable.from_json(table)
                for name, table in mapping(value.get("variants")).items()
            },
            sets={
                str(name): cls.from_json({**summary, "sets": None})
                for name, summary in mapping(value.get("sets")).items()
                if isinstance(summary, dict)
            },
        )
