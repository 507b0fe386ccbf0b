"""Keep the weights of a puzzle network at the measure with the best features.

`best.safetensors` lies beside `weights.safetensors`, which holds the last weights. `best.json`
records the measure and the hash of the weights. The stage features reads the best weights if
`features.checkpoint` is "best".
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ktfast.durable import read_sealed, sha256_file, write_sealed
from ktfast.errors import ConfigError, DataError
from ktfast.pipeline.run_folder import RunFolder

logger = logging.getLogger(__name__)

BEST, RECORD = "best.safetensors", "best.json"


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
        """Save the weights if their measure is better than all before.

        A training that continues from a checkpoint repeats its last steps. Until it has reached the
        step of the best measure again, that measure comes from the same training, and stays.

        Parameters
        ----------
        step : int
            Number of steps done.
        value : float
            The measure. The larger value is better; of equal values, the first.
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
            found = read_sealed(self.record, "it is removed")
            if self.path.is_file() and sha256_file(self.path) == found["weights"]:
                return found
        except DataError as error:
            logger.warning("%s", error)
        logger.warning("%s does not fit %s; both are removed", self.path, RECORD)
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
    if BEST not in run.result("pretext").get("files", {}):
        raise ConfigError(
            "features.checkpoint is 'best', but the stage pretext has not judged its features: the "
            "images of data.pretext have no classes, pretext.feature_measures is 0, or the file "
            f"{BEST} was lost; set features.checkpoint to last, or redo the stage pretext with "
            "images in one folder per class"
        )
    return run.artifact("pretext", BEST)
