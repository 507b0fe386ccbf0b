// How kernels are launched, and how they name their dynamic shared memory: on a GPU, or, where
// KTFAST_CUDA_EMULATION is defined, on the emulation that tests run on a CPU.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "common/cuda_check.cuh"

#if defined(KTFAST_CUDA_EMULATION)
#define KTFAST_DYNAMIC_SHARED(name) \
  unsigned char* const name = ::cuda_emulation::machine.dynamic_shared()
#else
// Aligned for every use: bulk copies and matrix descriptors ask for most.
#define KTFAST_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#endif

namespace ktfast::cuda {

// kernel<<<grid, block, shared_bytes, stream>>>(args...), checked.
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, CUstream_st* stream,
            const A&... args) {
#if defined(KTFAST_CUDA_EMULATION)
  static_cast<void>(stream);
  ::cuda_emulation::launch(kernel, grid, block, shared_bytes, args...);
#else
  constexpr size_t kGranted = 48 << 10;  // more has to be asked for
  if (shared_bytes > kGranted) {
    KTFAST_CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(shared_bytes)));
  }
  // clang-format off
  kernel<<<grid, block, shared_bytes, stream>>>(args...);
  // clang-format on
  KTFAST_CUDA_CHECK(cudaGetLastError());
#endif
}

}  // namespace ktfast::cuda
