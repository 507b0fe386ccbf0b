"""What the report says about the objective: what the target network learnt, and how well.

The words of the objective `clusters` speak of clusters and pseudo-labels. The other objectives have
neither.
"""

from dataclasses import dataclass

from ktfast.report.formats import MODEL_NAMES, amount
from ktfast.report.reading import RunReader
from ktfast.report.summaries import LearntFeatures

CLUSTERS = "clusters"


@dataclass(frozen=True)
class Words:
    """How the report speaks of an objective.

    Attributes
    ----------
    subtitle : str
        What a run with the objective does.
    model : str
        Name of the transferred network in tables.
    training : str
        Title of its training.
    learnt : str
        What the network learnt, as the object of a sentence.
    measured : str
        What is measured on held-out images, with what is best; empty for clusters.
    figure : str
        Title of the measure at the top of the page; empty for clusters.
    """

    subtitle: str
    model: str
    training: str
    learnt: str
    measured: str = ""
    figure: str = ""


_WORDS = {
    CLUSTERS: Words(
        "Knowledge transfer by clustering self-supervised features",
        MODEL_NAMES["transfer"],
        "Transfer (pseudo-labels)",
        "clusters",
    ),
    "regression": Words(
        "Knowledge transfer by regression of a teacher's features",
        "transfer (features by regression)",
        "Transfer (regression of the teacher's features)",
        "the teacher's features",
        "the mean cosine similarity of its outputs and the teacher's features",
        "Cosine similarity to the teacher",
    ),
    "similarity": Words(
        "Knowledge transfer by the similarities of a teacher's features",
        "transfer (similarities of features)",
        "Transfer (similarities of the teacher's features)",
        "the similarities of the teacher's features",
        "the mean divergence of its similarities from the teacher's (in nats, 0 is best)",
        "Divergence from the teacher",
    ),
}


def words_of(objective: str) -> Words:
    """Give the words of an objective; those of `clusters` for an unknown name."""
    return _WORDS.get(objective, _WORDS[CLUSTERS])


def model_names(objective: str) -> dict[str, str]:
    """Give the printed names of a run's models."""
    return {**MODEL_NAMES, "transfer": words_of(objective).model}


def learnt_features(run: RunReader) -> LearntFeatures | None:
    """Read how well the target learnt features.

    None if the target learnt pseudo-labels, if the stage transfer is stale, or if the features on
    which the target was measured were made again.
    """
    transfer = None if "transfer" in run.stale() else run.training("transfer")
    if transfer is None or transfer.held_out is None:
        return None
    made = {
        result.fingerprint
        for stage in run.stages()
        if stage.startswith("features/") and (result := run.result(stage)) is not None
    }
    found = transfer.held_out
    return found if not found.features or found.features in made else None


def learnt_finding(objective: str, found: LearntFeatures | None) -> list[str]:
    """Say how well the target learnt features, as sentences; empty without a measure."""
    if found is None:
        return []
    beside = "" if found.untrained is None else f" ({found.untrained:.3f} for an untrained network)"
    words = words_of(objective)
    return [
        f"The transferred network learnt {words.learnt}, and no clusters. On {_images(found)}, "
        f"{words.measured} is {found.trained:.3f}{beside}."
    ]


def tile(objective: str, found: LearntFeatures | None) -> tuple[str, str, str]:
    """Title, value and second line of the measure at the top of the page."""
    title = words_of(objective).figure
    if found is None:
        return title, "–", "not measured"
    beside = "" if found.untrained is None else f"untrained network {found.untrained:.3f}"
    return title, f"{found.trained:.3f}", beside


def facts_of(objective: str, found: LearntFeatures | None) -> list[tuple[str, str]]:
    """Name and value of each fact that the section on trainings shows; empty for pseudo-labels."""
    if objective == CLUSTERS:
        return []
    facts = [("objective", objective)]
    if found is not None:
        facts.append((f"{found.measure} on {_images(found)}", f"{found.trained:.3f}"))
        if found.untrained is not None:
            facts.append(("of an untrained network", f"{found.untrained:.3f}"))
    return facts


def _images(found: LearntFeatures) -> str:
    kind = "test images" if found.measured_on == "test" else "training images"
    return kind if found.images is None else f"{amount(found.images)} {kind}"
