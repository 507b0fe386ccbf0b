"""Build networks without memory for their weights, to look at their layers and sizes."""

from collections.abc import Callable

import torch
from torch import nn


def without_weights(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network on torch's meta device, which keeps shapes only.

    Parameters
    ----------
    build : callable
        Builds the network.

    Returns
    -------
    network : nn.Module
        The network on the meta device. torch's random generators are as before.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build()
        except RuntimeError:
            # RegNets compute their widths with tensors, which the meta device cannot do.
            with torch.device("cpu"):
                return build().to("meta")
