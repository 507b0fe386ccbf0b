"""The CUDA module as a file: it loads without a driver and holds code for every GPU it promises."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_tools import cuobjdump

SPEC = importlib.util.find_spec("ktfast._cuda")
pytestmark = pytest.mark.skipif(SPEC is None, reason="this build has no CUDA module")


def run_python(code, folder, **environment):
    """Run code in `folder`, where no ktfast lies, with the ktfast under test."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"PYTHONPATH": str(Path(SPEC.origin).parents[1]), **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def architectures():
    """The promised machine codes and intermediate codes, such as {"90"} and {"120"}."""
    from ktfast import _cuda

    names = _cuda.architectures.split()
    real = {n.split("-")[0] for n in names if not n.endswith("-virtual")}
    virtual = {n.split("-")[0] for n in names if not n.endswith("-real")}
    return real, virtual


def test_importing_it_loads_no_cuda_library(tmp_path):
    maps = "open('/proc/self/maps').read()"
    code = f"import ktfast._cuda; m = {maps}; print('libcuda' in m, 'cudart' in m)"
    assert run_python(code, tmp_path) == ["False", "False"]


def test_without_a_device_it_says_so(tmp_path):
    """CUDA_VISIBLE_DEVICES hides the devices of a machine that has some."""
    code = """if True:
        from ktfast import _backend
        print(_backend.has_cuda())
        try:
            _backend.cuda()
        except RuntimeError as error:
            print("no usable CUDA device" in str(error))
    """
    assert run_python(code, tmp_path, CUDA_VISIBLE_DEVICES="") == ["False", "True"]


def test_every_promised_gpu_has_machine_code():
    real, virtual = architectures()
    assert set(re.findall(r"\.sm_(\d+)\.cubin", cuobjdump(SPEC.origin, "--list-elf"))) == real
    assert set(re.findall(r"\.sm_(\d+)\.ptx", cuobjdump(SPEC.origin, "--list-ptx"))) == virtual


def test_no_kernel_spills():
    usage = cuobjdump(SPEC.origin, "--dump-resource-usage")
    kernels = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:\d+ SHARED:\d+ LOCAL:(\d+)", usage)
    assert len(kernels) >= len(architectures()[0])
    assert [name for name, _, local in kernels if local != "0"] == []
