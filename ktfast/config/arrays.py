"""Which options need photographs, and are refused if the image folders hold arrays."""

from collections.abc import Iterator

from ktfast.config.cluster import ClusterConfig
from ktfast.config.data import DataConfig
from ktfast.config.evaluate import EvaluateConfig
from ktfast.config.features import FeaturesConfig
from ktfast.config.sources import read_source
from ktfast.config.transfer import TransferConfig
from ktfast.config.voc import VocConfig


def array_problem(
    data: DataConfig,
    features: FeaturesConfig,
    cluster: ClusterConfig,
    transfer: TransferConfig,
    evaluate: EvaluateConfig,
    voc: VocConfig,
) -> str:
    """Say which option needs photographs although `transfer.channels` announces arrays.

    Parameters
    ----------
    data, features, cluster, transfer, evaluate, voc : Section
        The sections of a configuration.

    Returns
    -------
    problem : str
        The option, the reason and the remedy; empty if the options fit each other.
    """
    if transfer.channels is None:
        if transfer.array_range != (0.0, 255.0):
            return (
                "transfer.array_range is set, but a run on photographs does not use it; set "
                "transfer.channels to the number of channels of the arrays"
            )
        return ""
    own = all(part.kind == "function" for part in read_source(features.source))
    if cluster.features is None and not own:
        teacher = (
            f"the teacher {features.source} sees photographs; give the features of the items as "
            "cluster.features, or your own function as features.source"
        )
    else:
        teacher = ""
    for problem in (teacher, *_problems(data, transfer, evaluate, voc)):
        if problem:
            return (
                f"transfer.channels is {transfer.channels}, so the image folders hold arrays, but "
                f"{problem}"
            )
    return ""


def _problems(
    data: DataConfig, transfer: TransferConfig, evaluate: EvaluateConfig, voc: VocConfig
) -> Iterator[str]:
    if ":" in transfer.target and transfer.channels != 3:
        yield (
            f"the target {transfer.target} takes images of 3 channels; set transfer.target to "
            "alexnet or vgg16, or give arrays of 3 channels"
        )
    if transfer.color_jitter:
        yield "transfer.color_jitter changes colours; leave it out"
    if data.feed == "dali":
        yield "NVIDIA DALI decodes photographs; set data.feed to auto"
    if "pretext" in evaluate.baselines:
        yield (
            "the baseline pretext learns from photographs; set evaluate.baselines, for example to "
            "random,labels"
        )
    if evaluate.models:
        yield "evaluate.models names networks that see photographs; leave it out"
    if evaluate.protocols:
        yield "evaluate.protocols mirrors photographs; leave it out"
    if any(
        part.folder is not None
        for part in (voc.classification, voc.detection, voc.segmentation, voc.svm)
    ):
        yield "PASCAL VOC consists of photographs; leave the folders of voc out"
