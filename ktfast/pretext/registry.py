"""The registry of pretext tasks: the names that the option `pretext.task` accepts.

To add a task to ktfast, write a subclass of `ktfast.pretext.protocol.Pretext`, give it a name here,
and name the options that it uses in `ktfast.config.pretext_tasks`.
"""

from ktfast.config import PretextConfig
from ktfast.errors import ConfigError
from ktfast.models import Trunk
from ktfast.pretext.foreign import import_pretext
from ktfast.pretext.jigsaw import Context, Jigsaw, JigsawPlusPlus
from ktfast.pretext.protocol import Pretext
from ktfast.pretext.rotation import Rotation

PRETEXTS: dict[str, type[Pretext]] = {
    "jigsaw++": JigsawPlusPlus,
    "jigsaw": Jigsaw,
    "rotation": Rotation,
    "context": Context,
}


def pretext_class(name: str) -> type[Pretext]:
    """Find a pretext task by its name.

    Parameters
    ----------
    name : str
        Value of the option `pretext.task`: a name of `PRETEXTS`, or MODULE:CLASS. The caller has
        checked that the user trusts the code of MODULE.

    Returns
    -------
    task : type
        The class.

    Raises
    ------
    ConfigError
        There is no task of this name, or its class cannot be imported.
    """
    if name in PRETEXTS:
        return PRETEXTS[name]
    if not all(name.partition(":")):
        raise ConfigError(
            f"pretext.task {name!r} is unknown; expected {', '.join(PRETEXTS)} or MODULE:CLASS"
        )
    return import_pretext(name)


def build_pretext(
    trunk: Trunk, options: PretextConfig, *, seed: int, n_threads: int = 0
) -> Pretext:
    """Build the task that `pretext.task` names, with its network.

    Parameters
    ----------
    trunk : Trunk
        The trunk that learns the task.
    options : PretextConfig
        Options of the section `pretext`.
    seed : int
        Seed of every random choice of the task.
    n_threads : int
        Number of CPU threads that prepare images. 0: one per core of this process.

    Returns
    -------
    task : Pretext
        The task. The network has torch's default weights.
    """
    task = pretext_class(options.task)
    return task(trunk, options, seed=seed, n_threads=n_threads or None)
