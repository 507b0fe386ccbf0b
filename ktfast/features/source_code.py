"""Identify the code of a teacher or of a pretext task without running it.

The file of its module and the version of its package identify the code.
"""

import ast
import contextlib
import dataclasses
import hashlib
import importlib.machinery
import importlib.metadata
import inspect
import os
import sys
from pathlib import Path

from ktfast.errors import reading, shown


@dataclasses.dataclass(frozen=True)
class SourceCode:
    """What identifies the code of a teacher or of a pretext task.

    Attributes
    ----------
    fingerprint : str
        SHA-256 over the module's file and the version of the module's package.
    text : str
        What the code is, for messages.
    """

    fingerprint: str
    text: str


def source_code(source: str) -> SourceCode:
    """Identify the code behind `MODULE:CALLABLE`.

    No code of the module is run. The modules that the module imports are not compared.

    Parameters
    ----------
    source : str
        Value of the option `features.source` or `pretext.task`.

    Returns
    -------
    code : SourceCode
        Hash and description. A module without a file, such as that of a notebook, is identified by
        the text of the callable. If there is none, only the name of the module is hashed.
    """
    module, _, attribute = source.partition(":")
    version = _version(module.partition(".")[0])
    path = module_file(module)
    content = b""
    if path is not None:
        with reading(path, "a Python module"):
            content = path.read_bytes()
    elif (found := getattr(sys.modules.get(module), attribute, None)) is not None:
        with contextlib.suppress(OSError, TypeError):  # no text is known
            content = inspect.getsource(found).encode("utf-8", "surrogateescape")
    place = f"the code in {shown(path)}" if path is not None else f"the module {module}"
    text = f"{place}, version {version}" if version else place
    return SourceCode(_sha256(module, version, content), text)


def module_file(module: str) -> Path | None:
    """Find the file of a module, also in the working directory, without importing anything.

    Parameters
    ----------
    module : str
        Dotted name.

    Returns
    -------
    path : Path or None
        The file. None: there is no such module, or it has no file.
    """
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if loaded is not None:
        return Path(loaded)
    folders: list[str] | None = [*sys.path, os.getcwd()]
    spec = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[:depth]), folders)
        if spec is None:
            return None
        folders = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec is not None and spec.origin and spec.has_location else None


def _version(package: str) -> str:
    """Read the version of an installed package, or `__version__` in the package's file; or ""."""
    try:
        return importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        pass
    path = module_file(package)
    if path is None or path.suffix != ".py":
        return ""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if "__version__" in names:
                return str(node.value.value)
    return ""


def _sha256(name: str, version: str, content: bytes) -> str:
    digest = hashlib.sha256(f"{name}\n{version}\n".encode("utf-8", "surrogateescape"))
    digest.update(content)
    return digest.hexdigest()
