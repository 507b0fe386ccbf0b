"""Which options need photographs, and are refused if the image folders hold arrays."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ktfast.config.sources import read_source

if TYPE_CHECKING:
    from ktfast.config.run import Config


def array_problem(config: "Config") -> str:
    """Say which option needs photographs although `transfer.channels` announces arrays.

    Parameters
    ----------
    config : Config
        Every option of a run.

    Returns
    -------
    problem : str
        The option, the reason and the remedy; empty if the options fit each other.
    """
    if config.transfer.channels is None:
        if config.data.array_range != (0.0, 255.0):
            return (
                "data.array_range is set, but the image folders hold photographs; set "
                "transfer.channels to the number of channels of the arrays"
            )
        return ""
    for problem in _problems(config):
        return (
            f"transfer.channels is {config.transfer.channels}, so the image folders hold arrays, "
            f"but {problem}"
        )
    return ""


def _problems(config: "Config") -> Iterator[str]:
    transfer, evaluate, voc = config.transfer, config.evaluate, config.voc
    own = all(part.kind == "function" for part in read_source(config.features.source))
    if config.cluster.features is None and not own:
        yield (
            f"the teacher {config.features.source} sees photographs; give the features of the "
            "items as cluster.features, or your own function as features.source"
        )
    if ":" in transfer.target and transfer.channels != 3:
        yield (
            f"the target {transfer.target} takes images of 3 channels; set transfer.target to "
            "alexnet or vgg16, or give arrays of 3 channels"
        )
    if transfer.color_jitter:
        yield "transfer.color_jitter changes colours; leave it out"
    if config.data.feed == "dali":
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
