"""Keep the weights that a pretext network had when its features were best.

`checkpoint-best.safetensors` lies beside `weights.safetensors`, which holds the last weights.
`checkpoint-best.json` records the step, the measure and the hash of the best weights. The stage
features reads the best weights if `features.checkpoint` is "best".
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ktfast.durable import read_sealed, sha256_file, write_sealed
from ktfast.errors import ConfigError, DataError, shown
from ktfast.pipeline.run_folder import RunFolder

logger = logging.getLogger(__name__)

BEST, RECORD = "checkpoint-best.safetensors", "checkpoint-best.json"
_REMEDY = "redo the stage pretext, or set features.checkpoint to last"


class BestWeights:
    """The best weights of a training in a stage's folder.

    Parameters
    ----------
    folder : Path
        The stage's folder. Damaged files of an earlier call are removed.
    save : callable
        Writes the weights to a path.
    """

    def __init__(self, folder: Path, save: Callable[[Path], None]) -> None:
        self.path, self.record = folder / BEST, folder / RECORD
        self.save = save
        self.found = self._read()

    def offer(self, step: int, value: float) -> None:
        """Save the weights if their measure is better than every earlier measure.

        A training that continues from a checkpoint repeats its last steps. If it repeats the step
        of the best measure, the repeated weights and measure replace the stored ones.

        Parameters
        ----------
        step : int
            Number of steps done.
        value : float
            The measure. A larger value is better. Of equal values, the first is kept.
        """
        if self.found is not None and step != self.found["step"] and value <= self.found["value"]:
            return
        self.save(self.path)
        self.found = {"step": step, "value": value, "weights": sha256_file(self.path)}
        write_sealed(self.record, self.found)

    def _read(self) -> dict[str, Any] | None:
        if not (self.path.exists() or self.record.exists()):
            return None
        try:
            return _verified(self.path, self.record)
        except DataError as error:
            logger.warning("%s; the best weights are removed", error)
        self.path.unlink(missing_ok=True)
        self.record.unlink(missing_ok=True)
        return None


def best_weights(run: RunFolder) -> Path:
    """Locate the best weights of the finished stage pretext.

    Raises
    ------
    ConfigError
        The stage kept no best weights.
    DataError
        The stage is not finished, or the weights are damaged.
    """
    run.result("pretext")
    path, record = (run.stage("pretext") / name for name in (BEST, RECORD))
    if not (path.exists() or record.exists()):
        raise ConfigError(
            "features.checkpoint is best, but the stage pretext kept no best weights, because it "
            "did not judge its features; set features.checkpoint to last, or redo the stage "
            "pretext with images in one folder per class and pretext.feature_measures above 0"
        )
    _verified(path, record)
    return path


def _verified(path: Path, record: Path) -> dict[str, Any]:
    """Read the record of the best weights, and compare the weights with it."""
    found = read_sealed(record, _REMEDY)
    if not path.is_file() or sha256_file(path) != found.get("weights"):
        raise DataError(f"{shown(path)} is missing or damaged; {_REMEDY}")
    return found
