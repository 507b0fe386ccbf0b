"""The CUDA module loads without a driver, and its file holds code for every promised GPU."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.cuda_tools import cuobjdump, disassembly, kernels, loops

SPEC = importlib.util.find_spec("ktfast.native._cuda")
pytestmark = pytest.mark.skipif(SPEC is None, reason="this build has no CUDA module")


def run_python(code, folder, **environment):
    """Run code with the ktfast under test, in a folder that contains no ktfast."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"PYTHONPATH": str(Path(SPEC.origin).parents[2]), **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def machine_code():
    """Every kernel of the module, once per architecture; with instructions where tests need them.

    The stack alone shows whether a kernel spills, see `test_a_kernel_that_spills_is_found`.
    """
    return kernels(SPEC.origin, "mma_screen_kernel")


def architectures():
    """The promised machine codes and intermediate codes, such as {"90"} and {"120"}."""
    from ktfast.native import _cuda

    names = _cuda.architectures.split()
    real = {n.split("-")[0] for n in names if not n.endswith("-virtual")}
    virtual = {n.split("-")[0] for n in names if not n.endswith("-real")}
    return real, virtual


def test_importing_it_loads_no_cuda_library(tmp_path):
    maps = "open('/proc/self/maps').read()"
    code = f"import ktfast.native._cuda; m = {maps}; print('libcuda' in m, 'cudart' in m)"
    assert run_python(code, tmp_path) == ["False", "False"]


def test_without_a_device_it_says_so(tmp_path):
    """CUDA_VISIBLE_DEVICES hides the devices of a machine with GPUs."""
    code = """if True:
        from ktfast.native import modules
        print(modules.has_cuda())
        try:
            modules.cuda()
        except RuntimeError as error:
            print("no usable CUDA device" in str(error))
    """
    assert run_python(code, tmp_path, CUDA_VISIBLE_DEVICES="") == ["False", "True"]


def test_every_promised_gpu_has_machine_code(machine_code):
    real, virtual = architectures()
    names = {kernel.architecture for kernel in machine_code}
    # Kernels with instructions of Hopper alone are always built for sm_90a.
    assert names == {f"sm_{name}" for name in real} | {"sm_90a"}
    listed = cuobjdump(SPEC.origin, "--list-ptx")
    assert set(re.findall(r"\.sm_(\w+)\.ptx", listed)) == virtual


def test_no_kernel_spills(machine_code):
    assert [(k.name, k.architecture, k.stack_bytes) for k in machine_code if k.spills] == []


@pytest.mark.parametrize(
    ("name", "only", "instructions"),
    [
        ("mma_screen_kernel<Int8>", None, ["IMMA", "LDSM"]),
        ("mma_screen_kernel<Float16>", None, ["HMMA", "LDSM"]),
        ("wgmma_screen_kernel<Int8>", "sm_90a", ["IGMMA", "UBLKCP", "SYNCS", "USETMAXREG"]),
        ("wgmma_screen_kernel<Float16>", "sm_90a", ["HGMMA", "UBLKCP", "SYNCS", "USETMAXREG"]),
    ],
)
def test_the_screens_use_tensor_cores(machine_code, name, only, instructions):
    found = [kernel for kernel in machine_code if kernel.name == name]
    promised = {f"sm_{real}" for real in architectures()[0]} if only is None else {only}
    assert {kernel.architecture for kernel in found} == promised
    for kernel in found:
        for instruction in instructions:
            assert kernel.count(instruction) > 0, (kernel.architecture, instruction)
        # Each thread holds 128 sums. A block has 256 threads, or 384 that redistribute registers.
        assert 128 < kernel.registers <= (255 if only is None else 168)


def test_the_screens_divide_no_numbers_of_64_bits():
    """A GPU divides such numbers by a call, which converts them to float and back."""
    code = disassembly(SPEC.origin, "screen_kernel")
    assert code.count("mma_screen_kernel") >= 4
    assert re.findall(r"\b(?:I2F|F2I)\.[US]64[.\w]*", code) == []


def test_tiles_need_few_instructions():
    """No loop over the pixels of a tile has over 20 instructions per output, or 21 on Turing."""
    written = set()
    for loop in loops(SPEC.origin, "tile_kernel"):
        pixels = loop.count("LDS.U8", "LD.E.U8", "LDG.E.U8") // 3
        stores = loop.count("STG")
        if pixels == 0 or loop.count("STS") > 0:
            continue  # draws, copies to shared memory, or writes zeros
        size = 4 if "<0," in loop.kernel else 2  # bytes of an output
        packs = sum(
            n for name, n in loop.instructions.items() if name.startswith("STG") and ".128" in name
        )
        outputs = packs * 16 // size + stores - packs if stores else 3 * pixels
        assert outputs == 3 * pixels
        per_output = sum(loop.instructions.values()) / outputs
        # Turing rounds to bfloat16 with integer instructions.
        most = 21 if (loop.architecture, loop.kernel[:13]) == ("sm_75", "tile_kernel<2") else 20
        assert per_output <= most, (loop.kernel, loop.architecture, outputs, per_output)
        if stores:
            written.add((loop.kernel, outputs))
    # Planes and channels-last write the same packs. A tile whose planes are no whole packs, or that
    # is not aligned, is written element by element.
    for dtype, group in ((0, 12), (1, 24), (2, 24)):
        for staged in ("true", "false"):
            assert {(f"tile_kernel<{dtype}, {staged}>", n) for n in (3, group)} <= written


SPILLING = """
template <int n> __global__ void __launch_bounds__(1024) spilling_kernel(float* x) {
  float kept[n];
#pragma unroll
  for (int i = 0; i < n; ++i) kept[i] = x[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < n; ++i) x[i * 1024 + threadIdx.x] = kept[i] * kept[(i + 7) % n];
}
template __global__ void spilling_kernel<200>(float*);
template __global__ void spilling_kernel<4>(float*);
"""


def test_a_kernel_that_spills_is_found(tmp_path):
    """A thread in a block of 1,024 has 64 registers, which cannot hold 200 values."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc on the PATH")
    source, built = tmp_path / "spilling.cu", tmp_path / "spilling.o"
    source.write_text(SPILLING)
    subprocess.run([nvcc, "-arch=sm_80", "-c", source, "-o", built], check=True)
    found = {kernel.name: kernel for kernel in kernels(built)}
    assert set(found) == {"spilling_kernel<4>", "spilling_kernel<200>"}
    assert not found["spilling_kernel<4>"].spills
    assert found["spilling_kernel<4>"].stack_bytes == 0
    spilling = found["spilling_kernel<200>"]
    assert spilling.spills
    assert spilling.stack_bytes > 0
    assert spilling.registers == 64
    assert spilling.count("STL", "LDL") > 0
    assert spilling.count("IMMA", "HMMA") == 0
