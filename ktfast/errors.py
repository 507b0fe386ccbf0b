"""The exceptions of ktfast, and how a reader of files raises them.

The command line prints such an exception as one sentence.
"""

import contextlib
import functools
import inspect
import logging
import os
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class InputError(ValueError):
    """The user's data, file or option cannot be used; the message names it and says what to do.

    File names in the message are spelled as `shown` spells them, so that every message can be
    printed and encoded.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(shown(arg) if isinstance(arg, str) else arg for arg in args))


class DataError(InputError):
    """An image, a data set or an artifact cannot be used; the message names the path."""


class ConfigError(InputError):
    """An option is unknown or has an impossible value; the message names the option."""


def shown(path: str | os.PathLike[str]) -> str:
    """Spell a path, or a text that names paths, so that it can be printed and encoded.

    A file name on Linux is any sequence of bytes. Bytes that are not UTF-8 are written as escapes,
    such as `caf\\xe9.jpg`.
    """
    text = os.fsdecode(path)
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte; only damaged JSON holds one
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


class ShownFormatter(logging.Formatter):
    """A formatter of log records that spells file names as `shown` does."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record so that every stream can encode the text."""
        return shown(super().format(record))


@contextlib.contextmanager
def reading(
    path: str | os.PathLike[str], what: str, remedy: str = "give a file that is whole"
) -> Iterator[None]:
    """Turn every failure of a block that reads a file into a `DataError`.

    Libraries raise any kind of exception on a damaged file: `zlib.error`, `KeyError`,
    `tokenize.TokenError`, `LookupError`, and `MemoryError` if a header gives a huge size.

    Parameters
    ----------
    path : path
        The file. The message names it.
    what : str
        What the file should be, with an article: "a .npy file".
    remedy : str
        What the user can do, as an order.

    Raises
    ------
    DataError
        The block raised an exception that is not an `InputError`.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{shown(path)} does not exist; {remedy}") from error
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{shown(path)} cannot be read as {what} ({reason}); {remedy}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        raise DataError(f"{shown(path)} cannot be read as {what} ({reason}); {remedy}") from error


def opens(what: str, remedy: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a class method whose first argument is a path: its body runs inside `reading`.

    Parameters
    ----------
    what : str
        What the path should be, with an article.
    remedy : str
        What the user can do, as an order.

    Returns
    -------
    decorate : callable
        The decorator.
    """

    def decorate(method: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(method)
        first = list(signature.parameters)[1]

        @functools.wraps(method)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            with reading(signature.bind(*args, **kwargs).arguments[first], what, remedy):
                return method(*args, **kwargs)

        return guarded

    return decorate
