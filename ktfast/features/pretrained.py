"""Networks that other people trained: where their weights lie on this machine.

ktfast downloads nothing for timm and transformers. It reads the cache that both libraries and the
command `hf download` fill, and says what is missing.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch

from ktfast.durable import sha256_file, sha256_json
from ktfast.errors import ConfigError, reading, shown
from ktfast.optional import problem_of

Color = tuple[float, float, float]


class MissingModelError(ConfigError):
    """The weights of a model, or the package that builds the model, are not on this machine."""


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A pretrained network: its preprocessing, and its files on this machine.

    Attributes
    ----------
    model : str
        Full name of the model.
    size : int
        Side of the images for which the weights were made, pixels.
    mean, std : tuple of float
        Mean and standard deviation of each channel of the pixels, on the scale 0 to 1.
    files : tuple of Path
        Files with the weights and the description of the network.
    revision : str
        Commit of the model in the cache; empty for a folder or file of the user.
    """

    model: str
    size: int
    mean: Color
    std: Color
    files: tuple[Path, ...] = ()
    revision: str = ""

    def record(self) -> dict[str, Any]:
        """Describe the model for a manifest, as JSON values."""
        value = dataclasses.asdict(self)
        value["files"] = {path.name: sha256_file(path) for path in self.files}
        return {key: list(item) if isinstance(item, tuple) else item for key, item in value.items()}

    @property
    def fingerprint(self) -> str:
        """Hash of the files and of the preprocessing. The revision alone does not count."""
        return sha256_json({**self.record(), "revision": ""})


def need(package: str, source: str) -> None:
    """Refuse a teacher whose package is missing or broken.

    Parameters
    ----------
    package : str
        Name of the package.
    source : str
        The teacher, for messages.

    Raises
    ------
    MissingModelError
        The package cannot be imported. The message says what to install.
    """
    problem = problem_of(package)
    if problem is None:
        return
    state = f"which cannot be imported ({problem})" if problem else "which is not installed"
    raise MissingModelError(
        f"features.source {source!r} needs the package {package}, {state}; run pip install "
        f"{package}"
    )


def hub_folder() -> Path:
    """Locate the cache of Hugging Face's hub, which the variables of its packages can move."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if folder := os.environ.get(variable):
            return Path(folder).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(home).expanduser() / "hub"


def hub_snapshot(repository: str) -> tuple[Path, str] | None:
    """Find the newest cached state of a model of Hugging Face's hub.

    Parameters
    ----------
    repository : str
        OWNER/NAME.

    Returns
    -------
    found : tuple or None
        Folder with the model's files, and the commit; None if the cache lacks the model.
    """
    folder = hub_folder() / f"models--{repository.replace('/', '--')}"
    branch = folder / "refs" / "main"
    if not branch.is_file():
        return None
    with reading(branch, "the name of a commit", "download the model again"):
        commit = branch.read_text(encoding="ascii").strip()
    snapshot = folder / "snapshots" / commit
    return (snapshot, commit) if commit and snapshot.is_dir() else None


def torch_file(url: str) -> Path:
    """Locate the file into which torch's hub downloads a URL."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def missing_weights(source: str, repository: str, place: Path, otherwise: str) -> MissingModelError:
    """Make the error for weights that are not on this machine.

    Parameters
    ----------
    source : str
        The teacher.
    repository : str
        OWNER/NAME of the model on Hugging Face's hub.
    place : Path
        Where the weights were looked for.
    otherwise : str
        What the user can do instead of a download, as an order.

    Returns
    -------
    error : MissingModelError
        The error.
    """
    return MissingModelError(
        f"features.source {source!r}: the weights of {repository} are not on this machine; ktfast "
        f"looked in {shown(place)} and downloads no model of this kind. Run hf download "
        f"{repository} with a network connection, or {otherwise}"
    )
