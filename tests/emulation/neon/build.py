"""Build a copy of ktfast whose NEON kernels run on any x86-64 processor with AVX2.

Test fixtures call `build`. As a script, the file takes the folder to build in.
"""

import sys
from pathlib import Path

from emulation.avx512.build import AVX2_FLAGS, ROOT, build_package

EMULATION = Path(__file__).parent
ARM_FLAGS = ["-UKTFAST_X86_SIMD", "-UKTFAST_X86_AMX", "-DKTFAST_ARM_SIMD=1"]


def flags_of(source):
    """Return a source file's compiler flags."""
    if source.parent.name.startswith("neon"):
        return [*ARM_FLAGS, *AVX2_FLAGS, f"-I{EMULATION}", "-Wno-psabi"]
    if source.name == "cpu_features.cpp":
        return [*ARM_FLAGS, "-Dhas_neon_dot=has_neon_dot_of_this_processor"]
    return ARM_FLAGS


def build(folder, plain=None):
    """Build a copy of the package with the emulated module in a folder for PYTHONPATH.

    `plain` is the folder of `build_plain`. Without it, its files are compiled into `folder`.
    """
    sources = [
        source
        for source in (ROOT / "csrc").rglob("*.cpp")
        if source.name != "bind_cuda.cpp" and not source.parent.name.startswith(("avx", "amx"))
    ]
    return build_package(folder, [*sources, EMULATION / "processor.cpp"], flags_of, plain)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
