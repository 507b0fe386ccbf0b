"""Check that the processes of a run can share the lanes of its trainings."""

from collections.abc import Sequence

from ktfast.errors import ConfigError
from ktfast.pipeline.run_folder import RunFolder
from ktfast.training.lane_tree import uneven

# Sections whose trainings a stage runs on several processes.
_SECTIONS = {
    "pretext": ("pretext",),
    "transfer": ("transfer",),
    "evaluate": ("pretext", "transfer"),
}


def check_lanes(run: RunFolder, stages: Sequence[str]) -> None:
    """Refuse a number of processes that cannot share the lanes of a training evenly.

    Parameters
    ----------
    run : RunFolder
        The run, with its processes.
    stages : sequence of str
        The stages that are about to run.

    Raises
    ------
    ConfigError
        The number of lanes is above 1, and the number of processes does not divide it.
    """
    for stage in stages:
        for section in _SECTIONS.get(stage, ()):
            lanes: int = getattr(run.config, section).training.lanes
            if lanes > 1 and (problem := uneven(lanes, run.team.size)):
                raise ConfigError(f"{section}.training.lanes is {lanes}, {problem}")
