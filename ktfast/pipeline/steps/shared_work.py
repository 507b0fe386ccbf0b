"""What the helpers of a run do: their part of a training, of the features, and of the clusters.

Each function is called on every helper by `ktfast.pipeline.team.Team.call`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from ktfast.config import TrainingConfig
from ktfast.images.balance import Balance
from ktfast.images.feeds.base import Feed
from ktfast.images.source import PreparedSet
from ktfast.kmeans.distributed.ranks import ALONE, Ranks
from ktfast.pipeline.environment import resolve_device, torch_threads
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.image_sets import open_feed
from ktfast.pipeline.team import ONE, Team
from ktfast.training.assistance import assist
from ktfast.training.loop import Task


@dataclasses.dataclass(frozen=True)
class FeedOrder:
    """How a helper opens the feed that rank 0 has opened.

    Attributes
    ----------
    folder : str
        Folder of the prepared images.
    kind : str
        Kind of the feed. Decoders of different kinds may round a pixel differently.
    size, batch_size : int
        Side of the squares in pixels, and images per batch.
    shuffle : bool
        Whether every epoch has a new order.
    balance : Balance or None
        Groups of rows that an epoch shows equally often.
    """

    folder: str
    kind: str
    size: int
    batch_size: int
    shuffle: bool
    balance: Balance | None

    @classmethod
    def of(cls, feed: Feed) -> "FeedOrder":
        """Describe a feed over a prepared set."""
        plan, source = feed.plan, feed.source
        assert isinstance(source, PreparedSet)
        folder = str(source.folder)
        return cls(folder, feed.kind, plan.size, plan.batch_size, plan.shuffle, plan.balance)

    def open(self, run: RunFolder) -> Feed:
        """Open the feed for the device of this process."""
        data = run.config.data.model_copy(update={"feed": self.kind})
        config = run.config.model_copy(update={"data": data})
        return open_feed(
            dataclasses.replace(run, config=config),
            PreparedSet.open(self.folder),
            size=self.size,
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            balance=self.balance,
        )


def call_helpers(run: RunFolder, function: Callable[..., None], *arguments: Any) -> None:
    """Let every helper of a run call ``function(run, *arguments)``; nothing without helpers.

    Parameters
    ----------
    run : RunFolder
        The run. The helpers get it with their own device.
    function : callable
        A function of a module.
    *arguments : object
        Values that can be pickled.
    """
    if run.team.size > 1:
        alone = dataclasses.replace(run, team=ONE, listings={}, warned=set())
        run.team.call(_joined, alone, function, *arguments)


def _joined(team: Team, run: RunFolder, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function with the run of this helper."""
    config = run.config.model_copy(update={"device": team.device(run.config.device)})
    with torch_threads(config.threads):
        function(dataclasses.replace(run, config=config, team=team), *arguments)


def ranks_of_training(run: RunFolder, feed: Feed, config: TrainingConfig) -> Ranks:
    """Give the processes that share a training.

    Parameters
    ----------
    run : RunFolder
        The run.
    feed : Feed
        Images. Only feeds over prepared images are shared.
    config : TrainingConfig
        Whether processes share each batch, and how.

    Returns
    -------
    ranks : Ranks
        All processes, or rank 0 alone.
    """
    is_shared = config.is_shared and isinstance(feed.source, PreparedSet)
    return run.team.ranks if is_shared else ALONE


def help_train(
    run: RunFolder, task: Task, order: FeedOrder, config: TrainingConfig, name: str
) -> None:
    """Do a part of each step of a training that rank 0 runs with `ktfast.training.loop.train`."""
    device = resolve_device(run.config.device)
    seed, ranks = run.config.seed, run.team.ranks
    with order.open(run) as feed:
        assist(task, feed, config, name=name, seed=seed, device=device, ranks=ranks)
