"""Typed result of the measures without labels, which the stage evaluate stores."""

from dataclasses import dataclass, field

from ktfast.evaluation.json_values import Json, mapping, number


@dataclass(frozen=True)
class Pair:
    """Values of one measure: for the run and for an untrained network.

    Attributes
    ----------
    trained : float, optional
        Value of the run; None if it could not be measured.
    untrained : float, optional
        Value of an untrained network of the same architecture; None if there is none.
    """

    trained: float | None = None
    untrained: float | None = None

    def to_json(self) -> Json:
        """JSON object of the pair."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, value: object) -> "Pair":
        """Read what `to_json` returned."""
        known = mapping(value)
        return cls(number(known.get("trained")), number(known.get("untrained")))


@dataclass(frozen=True)
class UnlabelledMeasures:
    """What a run shows about its clusters and its student without labels.

    Attributes
    ----------
    agreement : Pair
        Adjusted Rand index of two clusterings of the teacher's features with different seeds.
    pseudo_labels : Pair
        Accuracy of the pseudo-labels that nearest neighbours predict for held-out images from the
        student's features.
    shared_neighbours : Pair
        Fraction of an image's nearest neighbours that the teacher's and the student's features
        share.
    effective_rank : Pair
        Effective rank of the student's features.
    layer : str
        Layer of the student that gives the features.
    images : int
        Number of images for shared neighbours and effective rank.
    voters : int
        Number of images for the accuracy of pseudo-labels.
    neighbors : int
        Number of nearest neighbours.
    """

    agreement: Pair = field(default_factory=Pair)
    pseudo_labels: Pair = field(default_factory=Pair)
    shared_neighbours: Pair = field(default_factory=Pair)
    effective_rank: Pair = field(default_factory=Pair)
    layer: str = ""
    images: int = 0
    voters: int = 0
    neighbors: int = 0

    def to_json(self) -> Json:
        """JSON object of the measures."""
        values = vars(self).items()
        return {key: v.to_json() if isinstance(v, Pair) else v for key, v in values}

    @classmethod
    def from_json(cls, value: object) -> "UnlabelledMeasures | None":
        """Read what `to_json` returned; None if the value is no JSON object."""
        if not isinstance(value, dict):
            return None

        def count(name: str) -> int:
            return int(number(value.get(name)) or 0)

        return cls(
            agreement=Pair.from_json(value.get("agreement")),
            pseudo_labels=Pair.from_json(value.get("pseudo_labels")),
            shared_neighbours=Pair.from_json(value.get("shared_neighbours")),
            effective_rank=Pair.from_json(value.get("effective_rank")),
            layer=str(value.get("layer", "")),
            images=count("images"),
            voters=count("voters"),
            neighbors=count("neighbors"),
        )


PAIRS = ("agreement", "pseudo_labels", "shared_neighbours", "effective_rank")
"""Names of the measures."""
