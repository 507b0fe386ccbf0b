"""What the compiler made of every CUDA kernel, as one table; needs cuobjdump, but no GPU.

    python benchmarks/cuda_resources.py [MODULE] [--json]

Registers and stack are a thread's, shared memory a block's without what a launch adds; then how
often loads and stores of spilled registers, tensor-core products and asynchronous copies stand in
the code. That no kernel spills is for tests/test_cuda_build.py to say.
"""

import argparse
import importlib.util
import json
from pathlib import Path

from ktfast.bench.core.harness import markdown
from ktfast.bench.core.machine_code import COPY_INSTRUCTIONS, TENSOR_INSTRUCTIONS, Kernel, kernels

COLUMNS = ("kernel", "architecture", "registers", "shared", "stack", "spill loads, stores")


def row(kernel: Kernel, instructions: list[str]) -> list[str]:
    spills = f"{kernel.count('LDL')}, {kernel.count('STL')}"
    numbers = (kernel.registers, kernel.shared_bytes, kernel.stack_bytes, spills)
    counts = (kernel.count(name) or "" for name in instructions)
    return [kernel.name, kernel.architecture, *map(str, numbers), *map(str, counts)]


def table(found: list[Kernel]) -> str:
    """Markdown; instructions that occur nowhere have no column."""
    names = (*TENSOR_INSTRUCTIONS, *COPY_INSTRUCTIONS)
    used = [name for name in names if any(kernel.count(name) for kernel in found)]
    return markdown([*COLUMNS, *used], [row(kernel, used) for kernel in found])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module", nargs="?", type=Path, help="default: ktfast's CUDA module")
    parser.add_argument("--json", action="store_true", help="a line each, with every instruction")
    arguments = parser.parse_args()
    module = arguments.module
    if module is None:
        spec = importlib.util.find_spec("ktfast.native._cuda")
        if spec is None or spec.origin is None:
            parser.error("this build of ktfast has no CUDA module; name a file")
        module = Path(spec.origin)
    found = kernels(module)
    if arguments.json:
        for kernel in found:
            print(json.dumps(kernel._asdict()))
    else:
        print(table(found))


if __name__ == "__main__":
    main()
