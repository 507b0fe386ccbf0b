"""Print lines that any terminal can show."""

import os
import sys
from typing import TextIO

from ktfast.errors import shown


def print_line(text: str | os.PathLike[str], stream: TextIO | None = None) -> None:
    """Print a line, by default on stdout. What the stream cannot encode is printed as escapes."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    print(shown(text).encode(encoding, "backslashreplace").decode(encoding), file=stream)
