"""Build a copy of ktfast with AddressSanitizer and UBSan, for the tests of the native code.

Test fixtures call `build`. As a script, the file takes the folder to build in.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ktfast
from emulation.avx512.build import (
    AMX_FLAGS,
    AVX2_FLAGS,
    AVX512_FLAGS,
    ROOT,
    compile_one,
    compiler,
    x86_sources,
)

SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
FLAGS = [*SANITIZERS, "-O1", "-g1", "-fno-omit-frame-pointer", "-Wno-error", "-w"]


def flags_of(source: Path) -> list[str]:
    folder = source.parent.name
    if folder == "bindings":
        return ["-O0"]  # optimised, the one file takes a third of the build
    if folder == "amx":
        return AMX_FLAGS
    if folder.startswith("avx512"):
        return AVX512_FLAGS
    return AVX2_FLAGS if folder == "avx2" else []


def build(folder: Path) -> Path:
    """Build a copy of the package with the checked module in a folder for PYTHONPATH."""
    csrc = ROOT / "csrc"
    package = folder / "ktfast"
    left_out = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(Path(ktfast.__file__).parent, package, ignore=left_out, dirs_exist_ok=True)

    def compiled(source: Path) -> Path:
        name = "_".join(source.relative_to(csrc).with_suffix(".o").parts)
        return compile_one(source, folder / name, [*FLAGS, *flags_of(source)])

    sources = x86_sources()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        objects = list(pool.map(compiled, sources))
    library = package / "native" / f"_cpu{sysconfig.get_config_var('EXT_SUFFIX')}"
    command = [compiler(), "-shared", "-pthread", *SANITIZERS, *objects, "-o", library]
    subprocess.run(command, check=True)
    return folder


def environment(package: Path) -> dict[str, str]:
    """Return the environment of a Python process that imports the checked package."""

    def file(name: str) -> str:
        command = [compiler(), f"-print-file-name={name}"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    kept = {k: v for k, v in os.environ.items() if "PYTEST" not in k}
    return {
        **kept,
        "LD_PRELOAD": f"{file('libasan.so')} {file('libstdc++.so.6')}",
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": str(package),
    }


if __name__ == "__main__":
    build(Path(sys.argv[1]))
