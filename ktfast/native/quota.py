"""The CPU quota of a container: how many cores the processes of a control group may use at a time.

Docker's `--cpus` and the CPU limits of Kubernetes set this quota. The quota does not show in the
number of cores or in the CPU affinity.
"""

import functools
import math
from collections.abc import Iterator
from pathlib import Path

__all__ = ["quota_cores"]

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


@functools.cache
def quota_cores() -> int | None:
    """The number of cores that the quota of this process allows, rounded up; None without quota.

    The quota is read once per process.
    """
    return read_quota(_OWN_GROUPS, _GROUPS)


def read_quota(own_groups: Path, groups: Path) -> int | None:
    """Read the smallest quota of a control group and the groups around it.

    Parameters
    ----------
    own_groups : Path
        The file that names the groups of the process, as `/proc/self/cgroup` does.
    groups : Path
        The folder of all groups, as `/sys/fs/cgroup`.

    Returns
    -------
    int or None
        Number of cores, at least 1. None if no group has a quota, or if none can be read.
    """
    quotas = [quota for folder in _folders(own_groups, groups) for quota in _quotas(folder)]
    return max(1, math.ceil(min(quotas))) if quotas else None


def _folders(own_groups: Path, groups: Path) -> Iterator[Path]:
    """The folders of the process's groups, and the folders around them up to `groups`."""
    try:
        lines = own_groups.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    found = {groups, groups / "cpu", groups / "cpu,cpuacct"}
    for line in lines:
        _number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = groups / controllers if controllers else groups
        # A container may see only its own group, which is then the root.
        group = root / path.strip("/")
        found |= {folder for folder in (group, *group.parents) if folder.is_relative_to(groups)}
    yield from found


def _quotas(folder: Path) -> Iterator[float]:
    """The quota of one group in cores, from version 2 or 1 of control groups."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        if quota != "max" and int(quota) > 0 and int(period) > 0:
            yield int(quota) / int(period)
    except (OSError, ValueError):
        return
