"""The machine code of the CUDA kernels: registers, shared memory, spills and instructions.

cuobjdump reads the module's file, so no GPU is needed. The tests and cuda_resources.py use this
module. The compiler spills registers to the stack, which the instructions STL and LDL access. The
field LOCAL of cuobjdump does not show spills: it is 0 even for a kernel that spills.
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
"""Matrix products of one warp (IMMA int8, HMMA 16 bits, DMMA float64) and of four warps (IGMMA
int8, HGMMA 16 bits, QGMMA 8 bits)."""

COPY_INSTRUCTIONS = ("LDSM", "LDGSTS", "UBLKCP", "UTMALDG")
"""Loads and copies: LDSM loads matrix fragments from shared memory. LDGSTS (cp.async) copies to
shared memory without registers. The copy engine copies a block of bytes (UBLKCP) or a tile of a
tensor (UTMALDG)."""

_FUNCTION = re.compile(r"^\s*Function\s*:?\s+(\S+?):?$")
_RESOURCES = re.compile(r"\bREG:(\d+) STACK:(\d+) SHARED:(\d+)")
_ARCHITECTURE = re.compile(r"^\s*(?:arch = |code for )(sm_\w+)$")
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)")
_LINE = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?(.*?)\s*;")
_BRANCH = re.compile(r"^BRA\b.*?\b0x([0-9a-f]+)")
_NAME = re.compile(r"([\w~]+)(<.*>)?\(")


class Kernel(NamedTuple):
    """The machine code of one kernel for one architecture."""

    name: str
    """The name without namespaces and arguments, such as "assign_kernel<float>"."""
    architecture: str
    """An architecture such as "sm_90a"."""
    registers: int
    """Registers of a thread."""
    shared_bytes: int
    """Static shared memory of a block; a launch may add dynamic shared memory."""
    stack_bytes: int
    """Stack of a thread: spilled registers, and arrays that registers cannot hold."""
    instructions: Counter[str]
    """Number of each instruction in the code, by its name without suffixes ("HMMA")."""

    @property
    def spills(self) -> bool:
        """Whether the kernel uses local memory."""
        return self.stack_bytes > 0 or self.instructions["STL"] > 0 or self.instructions["LDL"] > 0

    def count(self, *names: str) -> int:
        """The number of instructions with one of these names."""
        return sum(self.instructions[name] for name in names)


class Loop(NamedTuple):
    """The machine code of an innermost loop of a kernel."""

    kernel: str
    """The kernel's name without namespaces and arguments."""
    architecture: str
    """An architecture such as "sm_90a"."""
    instructions: Counter[str]
    """Number of each instruction in the loop, by its name with suffixes ("STG.E.128")."""

    def count(self, *starts: str) -> int:
        """The number of instructions whose names begin with one of these texts."""
        return sum(n for name, n in self.instructions.items() if name.startswith(starts))


def loops(module: Path, kernel: str) -> list[Loop]:
    """The innermost loops of the kernels whose name contains a text.

    A loop is the code between the target of a backward branch and the branch. The counts therefore
    include every side of the branches within the loop.
    """
    architecture = symbol = ""
    code: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for line in disassembly(module, kernel).splitlines():
        if match := _LINE.match(line):
            code[architecture, symbol].append((int(match[1], 16), match[2]))
        elif match := _ARCHITECTURE.match(line):
            architecture = match[1]
        elif match := _FUNCTION.match(line):
            symbol = match[1]
            code.setdefault((architecture, symbol), [])
    return [
        Loop(short_name(symbol), architecture, Counter(text.split()[0] for text in body))
        for (architecture, symbol), lines in code.items()
        for body in _innermost(lines)
    ]


def disassembly(module: Path, kernel: str) -> str:
    """The machine code of the kernels whose name contains a text, as cuobjdump prints the code."""
    resources = _resources(cuobjdump(module, "--dump-resource-usage"))
    symbols = sorted({symbol for (_, symbol), _ in resources if kernel in symbol})
    return cuobjdump(module, "--dump-sass", "--function", ",".join(symbols))


def _innermost(lines: list[tuple[int, str]]) -> Iterator[list[str]]:
    """The instructions of each loop that contains no other loop."""
    branches = [(int(m[1], 16), at) for at, text in lines if (m := _BRANCH.match(text))]
    found = {(first, last) for first, last in branches if first < last}
    for first, last in sorted(found):
        inside = {(a, b) for a, b in found if first <= a and b <= last}
        if inside == {(first, last)}:
            yield [text for at, text in lines if first <= at <= last]


def kernels(module: Path, disassembled: str = "") -> list[Kernel]:
    """Every kernel in a file, once per architecture.

    Parameters
    ----------
    module : Path
        An extension module, library or object file.
    disassembled : str
        Only kernels whose name contains this text are disassembled, which takes most of the time.
        The others have no `instructions`.

    Returns
    -------
    found : list of Kernel
        The kernels, sorted by architecture and name.

    Raises
    ------
    FileNotFoundError
        cuobjdump is missing; see `cuobjdump`.
    subprocess.CalledProcessError
        The file holds no CUDA code.
    """
    resources = dict(_resources(cuobjdump(module, "--dump-resource-usage")))
    symbols = sorted({symbol for _, symbol in resources if disassembled in symbol})
    chosen = ("--function", ",".join(symbols)) if disassembled else ()
    counts = _instructions(cuobjdump(module, "--dump-sass", *chosen))
    found = [
        Kernel(
            short_name(symbol), architecture, registers, shared, stack, counts.get(key, Counter())
        )
        for key, (registers, stack, shared) in resources.items()
        for architecture, symbol in [key]
    ]
    return sorted(found, key=lambda kernel: (len(kernel.architecture), *kernel[1::-1]))


def cuobjdump(module: Path, *options: str) -> str:
    """The output of cuobjdump about a file.

    Raises
    ------
    FileNotFoundError
        Neither the CUDA toolkit nor triton is installed; torch brings triton.
    subprocess.CalledProcessError
        The file holds no CUDA code.
    """
    command = [str(_tool()), *options, str(module)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def short_name(symbol: str) -> str:
    """A kernel's name without return type, namespaces and arguments."""
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
    raise FileNotFoundError("no cuobjdump: install the CUDA toolkit, or torch, which brings it")


def _resources(text: str) -> Iterator[tuple[tuple[str, str], tuple[int, int, int]]]:
    """(architecture, symbol) and (registers, stack bytes, shared bytes) of every kernel."""
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
    """The declaration of a C++ symbol, by the C++ library that the native modules use."""
    demangle = ctypes.CDLL("libstdc++.so.6")["__cxa_demangle"]
    demangle.restype = ctypes.c_char_p
    demangle.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    text: bytes | None = demangle(symbol.encode(), None, None, None)
    return symbol if text is None else text.decode()
