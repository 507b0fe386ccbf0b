"""What the compiler made of the CUDA kernels: registers, shared memory, spills, instructions.

Read from the module's file by cuobjdump, so no GPU is needed; for tests and for
benchmarks/cuda_resources.py. Registers that do not fit go to the stack, which STL and LDL access;
cuobjdump's own field LOCAL is 0 even then.
"""

import ctypes
import functools
import importlib.util
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TENSOR_INSTRUCTIONS = ("IMMA", "HMMA", "DMMA", "IGMMA", "HGMMA", "QGMMA")
"""Matrix products: of a warp (int8, 16 bits, float64), of four warps (int8, 16 and 8 bits)."""

COPY_INSTRUCTIONS = ("LDSM", "LDGSTS", "UBLKCP", "UTMALDG")
"""Matrix fragments from shared memory; copies to shared memory past the registers, of a thread
(cp.async) and of the copy engine (a block of bytes, a tile of a tensor)."""

_FUNCTION = re.compile(r"^\s*Function\s*:?\s+(\S+?):?$")
_RESOURCES = re.compile(r"\bREG:(\d+) STACK:(\d+) SHARED:(\d+)")
_ARCHITECTURE = re.compile(r"^\s*(?:arch = |code for )(sm_\w+)$")
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)")
_NAME = re.compile(r"([\w~]+)(<.*>)?\(")


class Kernel(NamedTuple):
    """One kernel's machine code for one architecture."""

    name: str
    """Without namespaces and arguments, such as "assign_kernel<float>"."""
    architecture: str
    """Such as "sm_90a"."""
    registers: int
    """Of a thread."""
    shared_bytes: int
    """Of a block, without what a launch adds."""
    stack_bytes: int
    """Of a thread: spilled registers, and arrays that no register can hold."""
    instructions: Counter[str]
    """How often each instruction stands in the code, by name without suffixes ("HMMA")."""

    @property
    def spills(self) -> bool:
        """Whether it keeps anything in local memory."""
        return self.stack_bytes > 0 or self.instructions["STL"] > 0 or self.instructions["LDL"] > 0

    def count(self, *names: str) -> int:
        """How many of its instructions have one of these names."""
        return sum(self.instructions[name] for name in names)


def kernels(module: Path) -> list[Kernel]:
    """Every kernel in a file, once per architecture, in the order of architectures and names.

    Parameters
    ----------
    module : an extension module, library or object file.

    Raises
    ------
    FileNotFoundError : cuobjdump is not there; see `cuobjdump`.
    subprocess.CalledProcessError : the file holds no CUDA code.
    """
    resources = dict(_resources(cuobjdump(module, "--dump-resource-usage")))
    counts = _instructions(cuobjdump(module, "--dump-sass"))
    found = [
        Kernel(short_name(symbol), architecture, registers, shared, stack, counts[key])
        for key, (registers, stack, shared) in resources.items()
        for architecture, symbol in [key]
    ]
    return sorted(found, key=lambda kernel: (len(kernel.architecture), *kernel[1::-1]))


def cuobjdump(module: Path, *options: str) -> str:
    """The output of cuobjdump about a file.

    Raises
    ------
    FileNotFoundError : neither the CUDA toolkit nor triton, which torch brings, is installed.
    subprocess.CalledProcessError : the file holds no CUDA code.
    """
    command = [str(_tool()), *options, str(module)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def short_name(symbol: str) -> str:
    """A kernel's name as one writes it: without return type, namespaces and arguments."""
    text = _demangled(symbol).replace("(anonymous namespace)::", "")
    match = _NAME.search(text)
    if match is None:
        return text
    arguments = re.sub(r"\b\w+::|\([\w:]+\)", "", match[2] or "")
    return match[1] + arguments


@functools.cache
def _tool() -> Path:
    beside = Path("/usr/local/cuda/bin/cuobjdump")
    triton = importlib.util.find_spec("triton")
    candidates = [Path(found)] if (found := shutil.which("cuobjdump")) else []
    candidates.append(beside)
    if triton is not None and triton.origin is not None:
        candidates.append(Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump")
    for path in candidates:
        if path.exists():
            return path
    raise FileNotFoundError("no cuobjdump: neither the CUDA toolkit nor triton is installed")


def _resources(text: str) -> Iterator[tuple[tuple[str, str], tuple[int, int, int]]]:
    """(architecture, symbol), and its registers, stack and shared bytes."""
    architecture = symbol = ""
    for line in text.splitlines():
        if match := _ARCHITECTURE.match(line):
            architecture = match[1]
        elif match := _FUNCTION.match(line):
            symbol = match[1]
        elif match := _RESOURCES.search(line):
            registers, stack, shared = map(int, match.groups())
            yield (architecture, symbol), (registers, stack, shared)


def _instructions(text: str) -> dict[tuple[str, str], Counter[str]]:
    """The instructions of every (architecture, symbol)."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    architecture = ""
    current: Counter[str] = Counter()
    for line in text.splitlines():
        if match := _INSTRUCTION.match(line):
            current[match[1]] += 1
        elif match := _ARCHITECTURE.match(line):
            architecture = match[1]
        elif match := _FUNCTION.match(line):
            current = counts.setdefault((architecture, match[1]), Counter())
    return counts


def _demangled(symbol: str) -> str:
    """A C++ symbol as its declaration, by the C++ library that the native modules need anyway."""
    demangle = ctypes.CDLL("libstdc++.so.6")["__cxa_demangle"]
    demangle.restype = ctypes.c_char_p
    demangle.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    text: bytes | None = demangle(symbol.encode(), None, None, None)
    return symbol if text is None else text.decode()
