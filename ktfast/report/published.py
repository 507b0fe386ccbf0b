"""Choose the published rows to show beside a run: rows that fit the run's teacher and data.

The paper reports teachers that learnt Jigsaw++ with VGG-16 or with AlexNet, and HOG. A run with
another teacher has no published counterpart.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ktfast.config import Config
from ktfast.evaluation import paper
from ktfast.evaluation.results import ByModel

_TEACHERS = {"hog": "CC+HOG", "alexnet": "CC+Jigsaw++", "vgg16": "CC+vgg-Jigsaw++"}
_CLUSTERED = {"CC+Jigsaw++": "AlexNet", "CC+vgg-Jigsaw++": "VGG-16"}
# The number of classes of Places205.
_PLACES_CLASSES = 205


@dataclass(frozen=True)
class Published:
    """The published counterparts of a run.

    Attributes
    ----------
    methods : dict of str to str
        Method of the paper by model of the run. A model without a counterpart is left out.
    remark : str
        Which published row is the counterpart of the transferred network, and why.
    on_places : bool
        Whether the run's probes see images of Places205.
    other_transfer : bool
        Whether the run clusters other images than it labels.
    clusters : int, optional
        Number of clusters that the target learns.
    """

    methods: dict[str, str] = field(default_factory=dict)
    remark: str = ""
    on_places: bool = False
    other_transfer: bool = False
    clusters: int | None = None

    def model_of(self, method: str) -> str:
        """The model of the run whose counterpart is a method; empty if there is none."""
        return next((model for model, name in self.methods.items() if name == method), "")

    def voc_model_of(self, row: paper.VocRow) -> str:
        """The model of the run whose counterpart is a row on PASCAL VOC; empty if none."""
        if not row.clustered:
            return self.model_of(row.name)
        names = [name for name, network in _CLUSTERED.items() if network == row.pretext_network]
        return next((model for name in names if (model := self.model_of(name))), "")


def published_beside(config: Config | None, classes: float | None) -> Published:
    """Find the published counterparts of a run.

    Parameters
    ----------
    config : Config, optional
        Options of the run; None if they are unknown.
    classes : float, optional
        Number of classes of the labelled images.

    Returns
    -------
    Published
        The counterparts. All of them have an AlexNet as the target network.
    """
    if config is None:
        return Published(
            remark="The options of this run are unknown, so no published row stands for it."
        )
    folders = config.data.folders()
    probed = [str(folders[role]).lower() for role in ("train", "test") if role in folders]
    methods, remark = _methods(config)
    on_clusters = config.transfer.objective == "clusters"
    return Published(
        methods,
        remark,
        on_places=classes == _PLACES_CLASSES or any("places" in folder for folder in probed),
        other_transfer=on_clusters and folders.get("cluster") != folders.get("transfer"),
        clusters=config.cluster.n_clusters if on_clusters else None,
    )


def _methods(config: Config) -> tuple[dict[str, str], str]:
    """Method of the paper by model of the run, and the reason."""
    target = config.transfer.target
    if target != "alexnet":
        return {}, (
            f"The target network of this run is {target}, and that of the published results is "
            "AlexNet, so no published row stands for this run."
        )
    methods = {"labels": "ImageNet labels", "random": "random"}
    if _learns_jigsaw(config):
        methods = {"pretext": "Jigsaw++", **methods}
    teacher, reason = _teacher(config)
    if teacher is None:
        return methods, f"No published row stands for the transfer of this run, because {reason}."
    remark = f"The published row of the transfer is {teacher}, because {reason}."
    return {"transfer": teacher, **methods}, remark


def _teacher(config: Config) -> tuple[str | None, str]:
    """The method of the paper with the run's teacher, or None; and the reason."""
    features, objective = config.features, config.transfer.objective
    if objective != "clusters":
        return None, f"its target learnt with the objective {objective}, and no clusters"
    if config.cluster.features is not None:
        return None, "its features come from a file"
    if features.source == "hog":
        return _TEACHERS["hog"], "its teacher is HOG"
    if features.source != "pretext":
        return None, f"the paper has no teacher {features.source}"
    if features.weights is not None:
        return None, "the weights of its teacher come from a file"
    if not _learns_jigsaw(config):
        return None, "its teacher learnt another task than Jigsaw++"
    trunk = config.pretext.trunk
    return _TEACHERS[trunk], f"its teacher learnt Jigsaw++ with {trunk}"


def _learns_jigsaw(config: Config) -> bool:
    """Say whether the pretext task is Jigsaw++, the only task of earlier versions."""
    return bool(getattr(config.pretext, "task", "jigsaw++") == "jigsaw++")


def by_layer(rows: Iterable[paper.LayerRow]) -> ByModel:
    """Published accuracy in percent by method and layer."""
    return {row.name: dict(zip(paper.CONV_LAYERS, row.accuracy, strict=True)) for row in rows}


def notes_on(rows: Iterable[paper.LayerRow]) -> list[str]:
    """Remarks on published rows, and the source of rows that the paper does not print."""
    notes = []
    for row in rows:
        source = [] if row.source == "printed" else [f"{paper.SOURCES[row.source]}"]
        if text := "; ".join([*source, *([row.note] if row.note else [])]):
            notes.append(f"{row.name}: {text}.")
    return notes


def voc_notes() -> list[str]:
    """The source of every figure on PASCAL VOC that neither the paper nor its authors state."""
    names = ("classification", "detection_single_scale", "detection_multi_scale", "segmentation")
    notes = []
    for row in paper.VOC:
        sources: dict[str, list[str]] = {}
        for name in names:
            figure = getattr(row, name)
            if figure is not None and figure[1] != "third party":
                sources.setdefault(paper.SOURCES[figure[1]], []).append(name.replace("_", " "))
        if sources:
            texts = (f"{', '.join(found)}: {source}" for source, found in sources.items())
            notes.append(f"{row.name}: {'; '.join(texts)}.")
    return notes
