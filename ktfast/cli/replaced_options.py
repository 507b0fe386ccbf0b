"""Which options of a run folder another configuration replaces."""

from collections.abc import Collection
from pathlib import Path

from ktfast.config import Config, differences, load_config
from ktfast.errors import InputError
from ktfast.pipeline.question import spelled
from ktfast.pipeline.run_folder import for_toml

_MOST = 8


def replaced(own: Path, config: Config, given: Collection[str]) -> str:
    """List the options of a run folder that a configuration changes or leaves out.

    Parameters
    ----------
    own : Path
        The file `config.toml` of the run folder.
    config : Config
        The configuration of the command.
    given : collection of str
        Dotted names of the options that the command line gave. They are not listed.

    Returns
    -------
    changes : str
        The first eight differences; empty if there are none.
    """
    try:
        before = for_toml(load_config(own).model_dump())
    except InputError:
        return ""  # a damaged file, which the command replaces
    changes = [
        f"{name} was {spelled(old)}, is {'not set' if new is None else f'now {new!r}'}"
        for name, old, new in differences(before, for_toml(config.model_dump()))
        if name not in given and not any(option.startswith(f"{name}.") for option in given)
    ]
    if len(changes) > _MOST:
        changes = [*changes[:_MOST], f"and {len(changes) - _MOST} more"]
    return "; ".join(changes)
