"""Compare the photographs of a run with those of a feature folder that another run wrote.

The rows of such a folder are matched by path. The photographs of two data sets can have equal
paths, such as `images/0001.jpg`.
"""

import logging
from pathlib import Path

from ktfast.durable import read_sealed
from ktfast.errors import shown
from ktfast.evaluation.json_values import mapping
from ktfast.images.file_records import UNREAD, read_records
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.image_sets import set_name
from ktfast.pipeline.steps.prepared_images import recorded_hashes

logger = logging.getLogger(__name__)

_REMEDY = "run the stages of that run again"


def check_photographs(run: RunFolder) -> None:
    """Warn of features in `cluster.features` that were made from other files of the same paths.

    The stage prepare of the other run has recorded the hash of every photograph. Without the
    records of the images that the features were made from, nothing is compared, and so it is for
    features that ktfast did not write. Other files are not refused, because a resized copy of a
    photograph is another file, too.

    Parameters
    ----------
    run : RunFolder
        The run. The images of its role "transfer" are prepared.
    """
    features = run.config.cluster.features
    if features is None or not (features / "result.json").is_file():
        return
    result = read_sealed(features / "result.json", _REMEDY)
    stage, content = (mapping(result.get(key)).get("images") for key in ("from", "inputs"))
    if stage is None or content is None:
        return
    theirs = _recorded(features.resolve().parent.parent / str(stage), str(content))
    hashes = recorded_hashes(run, set_name(run, "transfer")) if theirs else {}
    differing = [
        path
        for path, own in hashes.items()
        if UNREAD not in (own, other := theirs.get(path, own)) and own != other
    ]
    if differing:
        logger.warning(
            "the features in %s were made from %s, whose %s is another file than that of %s (%d of "
            "%d photographs differ); unless these are copies in another size or format, extract "
            "the features of these photographs",
            shown(features),
            mapping(result.get("named")).get("images", "other images"),
            shown(differing[0]),
            shown(run.config.data.folders()["transfer"]),
            len(differing),
            len(hashes),
        )


def _recorded(prepared: Path, content: str) -> dict[str, str]:
    """Hash of every photograph of another run by path; empty if the set has another content."""
    result = prepared / "result.json"
    if not result.is_file() or read_sealed(result, _REMEDY).get("fingerprint") != content:
        return {}
    return {
        path: record.sha256
        for file in sorted(prepared.glob("sources-*.json"))
        for path, record in read_records(file).items()
    }
