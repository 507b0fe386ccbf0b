// The module ktfast._cuda: the same functions as ktfast._cpu, on the caller's device and stream.
// The CUDA runtime is linked statically, so the module also loads where there is no driver.
#include <cuda_runtime.h>
#include <pybind11/pybind11.h>

#include "bindings/array.h"

namespace ktfast {
namespace {

// 0 without a driver or a device: that is an answer, not an error.
int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());  // clears the sticky error
    return 0;
  }
  return count;
}

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels; arrays are passed through DLPack, outputs are allocated by the caller.";

  m.def("device_count", &device_count, "The number of usable CUDA devices; 0 without a driver.");
}

}  // namespace
}  // namespace ktfast
