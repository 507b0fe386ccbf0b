// A bug on purpose: a kernel that writes past the end of its memory. If memcheck does not report
// this bug, a clean report about ktfast's kernels proves nothing. session.py builds and runs the
// program; see sanitize.py.

#include <cuda_runtime.h>

namespace {

constexpr int kThreads = 64;

// The last thread writes one element past the end.
__global__ void out_of_bounds_kernel(float* x) { x[threadIdx.x + 1] = 1; }

}  // namespace

int main() {
  float* x = nullptr;
  if (cudaMalloc(&x, kThreads * sizeof(float)) != cudaSuccess) return 2;
  out_of_bounds_kernel<<<1, kThreads>>>(x);
  cudaDeviceSynchronize();  // memcheck reports the error, so this program does not
  return 0;
}
