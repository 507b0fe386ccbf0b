"""The labelled images of a run's probes: `data.train` and `data.test`, and `evaluate.sets`."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktfast.config import Config
from ktfast.errors import DataError
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.image_sets import open_set


@dataclass(frozen=True)
class LabelledSet:
    """The images that probes learn from, and the images that they are tested on.

    Attributes
    ----------
    name : str
        Name of an entry of `evaluate.sets`; empty for `data.train` and `data.test`.
    """

    name: str = ""

    @property
    def train(self) -> str:
        """Role of the images that probes learn from."""
        return f"{self.name}.train" if self.name else "train"

    @property
    def test(self) -> str:
        """Role of the images that probes are tested on."""
        return f"{self.name}.test" if self.name else "test"

    def file_of(self, model: str) -> str:
        """Name a model's part of the name of a file in the stage's folder."""
        return f"{model}@{self.name}" if self.name else model

    def option_of(self, role: str, config: Config) -> str:
        """Name the option that gives the images of a role; without `data.train`, another one."""
        return f"evaluate.sets.{role}" if self.name else config.data.option_of(role)


def labelled_sets(config: Config) -> list[LabelledSet]:
    """List the labelled sets of a run; that of `data.test` comes first."""
    own = [] if config.data.test is None else [LabelledSet()]
    return own + [LabelledSet(name) for name in config.evaluate.sets]


def labels_of(
    run: RunFolder, role: str, images: LabelledSet | None = None
) -> npt.NDArray[np.int64]:
    """Give the labels of a role's images, as indices into the classes of the training images.

    Parameters
    ----------
    run : RunFolder
        The run.
    role : str
        The role.
    images : LabelledSet, optional
        The set to which the role belongs. None: the set of `data.train` and `data.test`.

    Returns
    -------
    labels : array, int64 [n]
        Class of each image.

    Raises
    ------
    DataError
        An image has no class. The message names the image.
    """
    images = images or LabelledSet()
    found, classes = open_set(run, role), open_set(run, images.train).classes
    loose = np.flatnonzero(found.labels < 0)
    if len(loose):
        raise DataError(
            f"{images.option_of(role, run.config)}: {len(loose)} images lie in no class's folder, "
            f"the first is {found.paths[loose[0]]}; move every image into a class's folder"
        )
    translate = np.array([classes.index(key) for key in found.classes])
    translated: npt.NDArray[np.int64] = translate[found.labels]
    return translated
