"""Typed results of fine-tuning on PASCAL VOC: written by the stage voc, read by the report.

`to_json` and `from_json` work as those of `ktfast.evaluation.results`.
"""

from dataclasses import dataclass, field

from ktfast.evaluation.copies import Copies, copies_of
from ktfast.evaluation.json_values import Json, mapping, number, numbers
from ktfast.evaluation.results import Draws, ProtocolDetails, draws_of


@dataclass(frozen=True)
class VocRow:
    """Scores of one model fine-tuned by one protocol of PASCAL VOC: content of `voc/*/MODEL.json`.

    Attributes
    ----------
    score : float, optional
        Mean over the classes; None if no class has a score.
    classes : dict of str to float or None
        Score of each class.
    more : dict of str to float or None
        `mean_area` (mean area under the precision-recall curves) for classification and detection,
        `pixel_accuracy` for segmentation.
    steps : int, optional
        Steps of the training.
    protocol : dict of str to value
        How the model was trained and tested.
    areas : dict of str to float or None
        Area under the precision-recall curve of each class, for classification and detection. Empty
        if an earlier version of ktfast wrote the row.
    shots : dict of str to list of float
        Mean average precision of each sample of the training photographs, by the number of
        photographs that show a class. Only for support vector machines.
    tests : dict of str to VocRow
        Scores of further tests of the same network: of a detector at other scales.
    """

    score: float | None
    classes: dict[str, float | None]
    more: dict[str, float | None]
    steps: int | None
    protocol: ProtocolDetails
    areas: dict[str, float | None] = field(default_factory=dict)
    shots: Draws = field(default_factory=dict)
    tests: "dict[str, VocRow]" = field(default_factory=dict)

    def to_json(self) -> Json:
        """JSON object of the row; without areas if there are none."""
        tests = {name: row.to_json() for name, row in self.tests.items()}
        return {
            "score": self.score,
            "classes": self.classes,
            **self.more,
            "steps": self.steps,
            "protocol": self.protocol,
            **({"areas": self.areas} if self.areas else {}),
            **({"shots": self.shots} if self.shots else {}),
            **({"tests": tests} if tests else {}),
        }

    @classmethod
    def from_json(cls, value: Json) -> "VocRow":
        """Read a stored row; values of an unexpected type are left out."""
        steps = number(value.get("steps"))
        known = ("score", "classes", "steps", "protocol", "areas", "shots", "tests")
        classes, areas = (
            {str(k): number(v) for k, v in mapping(value.get(key)).items()}
            for key in ("classes", "areas")
        )
        return cls(
            score=number(value.get("score")),
            classes=classes,
            more={str(k): number(v) for k, v in value.items() if k not in known},
            steps=None if steps is None else int(steps),
            protocol=mapping(value.get("protocol")),
            areas=areas,
            shots=draws_of(value.get("shots")),
            tests={
                str(name): cls.from_json(row)
                for name, row in mapping(value.get("tests")).items()
                if isinstance(row, dict)
            },
        )


@dataclass(frozen=True)
class VocSummary:
    """Summary of one protocol of the stage voc.

    Attributes
    ----------
    measure : str
        Name of the score.
    models : dict of str to VocRow
        Scores of each model.
    images : dict of str to int
        Number of "train" and "test" images.
    copies : list of Copies
        Test photographs that are copies of training photographs.
    """

    measure: str
    models: dict[str, VocRow]
    images: dict[str, int]
    copies: list[Copies] = field(default_factory=list)

    def to_json(self) -> Json:
        """JSON object of the summary."""
        models = {name: row.to_json() for name, row in self.models.items()}
        value: Json = {"measure": self.measure, "models": models, "images": self.images}
        if self.copies:
            value["copies"] = [copies.to_json() for copies in self.copies]
        return value

    @classmethod
    def from_json(cls, value: Json) -> "VocSummary":
        """Read a stored summary; values of an unexpected type are left out."""
        models = mapping(value.get("models"))
        return cls(
            measure=str(value.get("measure", "")),
            models={
                str(name): VocRow.from_json(row)
                for name, row in models.items()
                if isinstance(row, dict)
            },
            images={key: int(n) for key, n in numbers(value.get("images")).items()},
            copies=copies_of(value.get("copies")),
        )
