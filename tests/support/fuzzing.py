"""Read damaged files in a process with bounded memory: `python -m support.fuzzing N FORMAT ...`.

Prints one line of JSON per format. A reader passes if it returns, or raises an `InputError`.
"""

import json
import logging
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from ktfast.errors import InputError
from support.foreign_files import FORMATS, Format
from support.mutate import mutations

MEMORY = 1 << 30
"""Bytes that all readers together may take beyond what the imported libraries hold."""
SLOW = 5.0
"""Processor seconds that no single file may take."""
SECONDS = 300
"""Processor seconds after which the system ends the process."""
CORPUS = Path(__file__).parents[1] / "corpus"
"""Files that once were read wrongly, in one folder per format."""


def main() -> None:
    n = int(sys.argv[1])
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    logging.disable()
    os.fsync = lambda _: None  # waiting for the disk shows nothing here
    for name in sys.argv[2:]:
        print(json.dumps({"format": name, "started": True}), flush=True)
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(run(name, FORMATS[name], n, Path(folder))), flush=True)


def run(name: str, kind: Format, n: int, folder: Path) -> dict[str, object]:
    """Read every damaged file of a format; say how many were refused, and what escaped."""
    whole = kind.files(folder)
    path = folder / kind.name
    for content in whole:
        path.write_bytes(content)
        kind.read(path)
    escaped: dict[str, str] = {}
    files = refused = 0
    longest = 0.0
    began = time.process_time()
    for origin, content in damaged(name, whole, n):
        path.unlink(missing_ok=True)  # ext4 flushes a file that is cut and written again
        path.write_bytes(content)
        files += 1
        start = time.process_time()
        try:
            kind.read(path)
        except InputError as error:
            refused += 1
            if isinstance(error.__cause__, MemoryError) and not kind.asks:
                escaped.setdefault(f"memory: {error}"[:300], origin)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            escaped.setdefault(f"{error!r:.200} at {place.filename}:{place.lineno}", origin)
        longest = max(longest, time.process_time() - start)
    seconds = time.process_time() - began
    return {
        "format": name, "files": files, "refused": refused, "escaped": escaped,
        "longest": longest, "seconds": seconds,
    }  # fmt: skip


def damaged(name: str, whole: list[bytes], n: int) -> Iterator[tuple[str, bytes]]:
    """The kept files of a format, then n mutations of its whole files."""
    for path in sorted((CORPUS / name).glob("*")):
        yield path.name, path.read_bytes()
    for seed, content in enumerate(whole):
        share = -(-n // len(whole))
        for number, changed in enumerate(mutations(content, share, seed)):
            yield f"file {seed}, mutation {number}", changed


if __name__ == "__main__":
    main()
