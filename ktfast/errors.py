"""The exceptions of ktfast, and how a reader of files raises them.

The command line prints such an exception as one sentence.
"""

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class InputError(ValueError):
    """The user's data, file or option cannot be used; the message names it and says what to do."""


class DataError(InputError):
    """An image, a data set or an artifact cannot be used; the message names the path."""


class ConfigError(InputError):
    """An option is unknown or has an impossible value; the message names the option."""


def shown(path: str | os.PathLike[str]) -> str:
    """Spell a path so that it can be printed and encoded.

    A file name on Linux is any sequence of bytes. Bytes that are not UTF-8 are written as escapes,
    such as `caf\\xe9.jpg`.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


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
    """Decorate a class method whose first argument is a path, so that its body lies in `reading`.

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
