// Four bugs on purpose, one for each tool of compute-sanitizer: a check that does not report its
// own proves nothing about the kernels. Built and run by gpu_session.py; see gpu_sanitize.py.
//
//     planted_bugs out_of_bounds | race | uninitialised | divergent_barrier

#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>

namespace {

constexpr int kThreads = 64;  // two warps

// memcheck: the last thread writes past the end.
__global__ void out_of_bounds_kernel(float* x) { x[threadIdx.x + 1] = 1; }

// racecheck: nothing orders the write of one warp and the read of the other.
__global__ void race_kernel(float* x) {
  __shared__ float kept[kThreads];
  kept[threadIdx.x] = x[threadIdx.x];
  x[threadIdx.x] = kept[kThreads - 1 - threadIdx.x];
}

// initcheck: nobody wrote y.
__global__ void uninitialised_kernel(float* x, const float* y) { x[threadIdx.x] = y[threadIdx.x]; }

// synccheck: half of each warp does not come to the barrier. It stays until the others wait there,
// because a barrier does not wait for threads that have ended; then it ends, so that nothing hangs.
__global__ void divergent_barrier_kernel(float* x) {
  __shared__ volatile int waiting;
  if (threadIdx.x == 0) waiting = 0;
  __syncthreads();
  if (threadIdx.x % 2 == 1) {
    while (waiting == 0) {
    }
    const long long began = clock64();
    while (clock64() - began < 1000000) {
    }
    return;
  }
  waiting = 1;
  __syncthreads();
  x[threadIdx.x] += 1;
}

}  // namespace

int main(int argc, char** argv) {
  const char* bug = argc == 2 ? argv[1] : "";
  float* x = nullptr;
  float* y = nullptr;
  if (cudaMalloc(&x, kThreads * sizeof(float)) != cudaSuccess) return 2;
  if (cudaMalloc(&y, kThreads * sizeof(float)) != cudaSuccess) return 2;
  if (cudaMemset(x, 0, kThreads * sizeof(float)) != cudaSuccess) return 2;
  if (std::strcmp(bug, "out_of_bounds") == 0) {
    out_of_bounds_kernel<<<1, kThreads>>>(x);
  } else if (std::strcmp(bug, "race") == 0) {
    race_kernel<<<1, kThreads>>>(x);
  } else if (std::strcmp(bug, "uninitialised") == 0) {
    uninitialised_kernel<<<1, kThreads>>>(x, y);
  } else if (std::strcmp(bug, "divergent_barrier") == 0) {
    divergent_barrier_kernel<<<1, kThreads>>>(x);
  } else {
    std::fprintf(stderr, "no such bug: %s\n", bug);
    return 2;
  }
  cudaDeviceSynchronize();  // what goes wrong is the tool's to report
  return 0;
}
