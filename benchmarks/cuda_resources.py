"""Registers, memory and instructions of every CUDA kernel, as a table; needs no GPU.

    python benchmarks/cuda_resources.py [MODULE] [--json]

The table has the registers and the stack of a thread, and the static shared memory of a block. The
other columns count the instructions that load and store spilled registers, multiply matrices and
copy to shared memory. cuobjdump, a tool of the CUDA toolkit and of triton, reads the code.
tests/native/test_cuda_build.py checks that no kernel spills.
"""

import argparse
import importlib.util
import json
from pathlib import Path

from machine_code import COPY_INSTRUCTIONS, TENSOR_INSTRUCTIONS, Kernel, kernels

from ktfast.bench.core.table import markdown

COLUMNS = ("kernel", "architecture", "registers", "shared", "stack", "spill loads, stores")


def row(kernel: Kernel, instructions: list[str]) -> list[str]:
    spills = f"{kernel.count('LDL')}, {kernel.count('STL')}"
    numbers = (kernel.registers, kernel.shared_bytes, kernel.stack_bytes, spills)
    counts = (kernel.count(name) or "" for name in instructions)
    return [kernel.name, kernel.architecture, *map(str, numbers), *map(str, counts)]


def table(found: list[Kernel]) -> str:
    """The kernels in Markdown; an instruction that no kernel has gets no column."""
    names = (*TENSOR_INSTRUCTIONS, *COPY_INSTRUCTIONS)
    used = [name for name in names if any(kernel.count(name) for kernel in found)]
    return markdown([*COLUMNS, *used], [row(kernel, used) for kernel in found])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "module", nargs="?", type=Path, help="file to read (default: ktfast's CUDA module)"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON per kernel")
    arguments = parser.parse_args()
    module = arguments.module
    if module is None:
        spec = importlib.util.find_spec("ktfast.native._cuda")
        if spec is None or spec.origin is None:
            parser.error("this build of ktfast has no CUDA module; name a file with CUDA code")
        module = Path(spec.origin)
    found = kernels(module)
    if arguments.json:
        for kernel in found:
            print(json.dumps(kernel._asdict()))
    else:
        print(table(found))


if __name__ == "__main__":
    main()
