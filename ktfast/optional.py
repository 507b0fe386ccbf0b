"""Packages that ktfast can do without: whether each of them works here, and if not, why."""

import importlib

from ktfast.errors import shown


def problem_of(module: str) -> str | None:
    """Import an optional module, and say why it cannot be used.

    A package that is installed may still raise any exception at import, for example if it cannot
    load a library of the GPU's driver.

    Parameters
    ----------
    module : str
        Dotted name of the module.

    Returns
    -------
    problem : str or None
        None: the module is imported. "": the package is not installed. Else: what the import
        raised, in one line.
    """
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken package raises anything
        is_missing = isinstance(error, ModuleNotFoundError) and module.startswith(str(error.name))
        if is_missing:
            return ""
        reason = str(error).strip().partition("\n")[0]
        return shown(f"{type(error).__name__}: {reason}".rstrip(": "))
    return None
