"""torch, or a stand-in that skips a test when the test first uses torch.

ktfast without extras has no torch. A test file that imports torch from here still runs its other
tests there.
"""

from typing import Any, NoReturn

import pytest


class Missing:
    """A package that is not installed, or an attribute of such a package."""

    def __init__(self, package: str) -> None:
        object.__setattr__(self, "package", package)

    def __getattr__(self, name: str) -> "Missing":
        if name.startswith("__"):  # Python and pytest ask for special attributes at collection
            raise AttributeError(name)
        return Missing(self.package)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        self()

    def __call__(self, *_: object, **__: object) -> NoReturn:
        pytest.skip(f"{self.package} is not installed")

    def __instancecheck__(self, instance: object) -> bool:
        return False


try:
    import torch
except ModuleNotFoundError:
    torch: Any = Missing("torch")
