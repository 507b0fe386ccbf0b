"""Share the curves of a training with the network that the training made.

The rows of `metrics.jsonl` become a file of the stage's folder, which the stage's result lists. A
run that takes the result puts the rows into its own `metrics.jsonl`, from which the report draws.
"""

from pathlib import Path

from ktfast.durable import parse_row, write_bytes
from ktfast.errors import reading
from ktfast.pipeline.run_folder import RunFolder

CURVES = "metrics.jsonl"
"""File of the rows in the stage's folder."""


def keep_curves(run: RunFolder, name: str, folder: Path) -> None:
    """Copy the rows of a training into the folder of its stage; write nothing without rows.

    Parameters
    ----------
    run : RunFolder
        The run.
    name : str
        Name of the stage, which is the name of the training in the rows.
    folder : Path
        The folder of the stage.
    """
    own, _ = _rows(run.metrics, name)
    if own:
        write_bytes(folder / CURVES, b"".join(own))


def take_curves(run: RunFolder, name: str, folder: Path) -> None:
    """Replace the rows of a training in `metrics.jsonl` by those in the folder of its stage.

    Parameters
    ----------
    run : RunFolder
        The run.
    name : str
        Name of the stage.
    folder : Path
        The folder of the stage. An entry of an earlier version of ktfast has no rows.
    """
    taken, _ = _rows(folder / CURVES, name)
    own, others = _rows(run.metrics, name)
    if taken != own:
        write_bytes(run.metrics, b"".join([*others, *taken]))


def _rows(path: Path, name: str) -> tuple[list[bytes], list[bytes]]:
    """The rows of a training and all other rows of a file, each with its line end."""
    if not path.is_file():
        return [], []
    with reading(path, "the metrics of a run", "remove the file"):
        lines = [line + b"\n" for line in path.read_bytes().splitlines()]
    rows = [(line, parse_row(line)) for line in lines]
    own = [line for line, row in rows if row is not None and row.get("stage") == name]
    others = [line for line, row in rows if row is not None and row.get("stage") != name]
    return own, others
