"""Compare the photographs of a run with those of a feature folder that another run wrote.

The rows of such a folder are matched by path. The photographs of two data sets can have equal
paths, such as `images/0001.jpg`.
"""

from pathlib import Path

from ktfast.durable import read_sealed
from ktfast.errors import DataError, shown
from ktfast.images.file_records import UNREAD, read_records
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.image_sets import set_name
from ktfast.pipeline.steps.prepared_images import recorded_hashes


def check_photographs(run: RunFolder) -> None:
    """Refuse the features of other photographs in `cluster.features`.

    The stage prepare of the other run has recorded the hash of every photograph. Without these
    records nothing is compared, and so it is for features that ktfast did not write.

    Parameters
    ----------
    run : RunFolder
        The run. The images of its role "transfer" are prepared.

    Raises
    ------
    DataError
        A photograph differs from the photograph of the same path in the other run.
    """
    features = run.config.cluster.features
    if features is None or not (features / "result.json").is_file():
        return
    result = read_sealed(features / "result.json", "run the features stage of that run again")
    stage = result.get("from", {}).get("images")
    if stage is None:
        return
    name = set_name(run, "transfer")
    theirs = _recorded(features.resolve().parent.parent / stage)
    hashes = recorded_hashes(run, name) if theirs else {}
    differing = [
        path
        for path, own in hashes.items()
        if UNREAD not in (own, other := theirs.get(path, own)) and own != other
    ]
    if differing:
        raise DataError(
            f"the features in {shown(features)} were made from other photographs: "
            f"{shown(differing[0])} of {result['named']['images'].removeprefix('the images in ')} "
            f"is another file than {shown(differing[0])} of {run.config.data.folders()['transfer']}"
            f" ({len(differing)} of {len(hashes)} photographs differ); extract the features of "
            "these photographs"
        )


def _recorded(prepared: Path) -> dict[str, str]:
    """Hash of every photograph of another run by path; empty without records."""
    return {
        path: record.sha256
        for file in sorted(prepared.glob("sources-*.json"))
        for path, record in read_records(file).items()
    }
