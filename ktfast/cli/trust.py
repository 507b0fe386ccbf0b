"""Say whether the command line itself names the code of the user that a run would call."""

from collections.abc import Container

from ktfast.config import Config
from ktfast.features.foreign import is_function


def names_all_code(config: Config, given: Container[str]) -> bool:
    """Say whether every module of the user whose code may run was named on the command line.

    Parameters
    ----------
    config : Config
        Every option of the run.
    given : container of str
        Dotted names of the options that the command line gave.

    Returns
    -------
    bool
        False if a file alone names a function or a class. Somebody else may have written the file.
    """
    named = {
        "features.source": is_function(config.features.source),
        "pretext.task": ":" in config.pretext.task,
    }
    return all(name in given for name, is_code in named.items() if is_code)
