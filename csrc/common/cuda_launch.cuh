// Launches kernels and names their dynamic shared memory. With KTFAST_CUDA_EMULATION defined,
// kernels run on the emulated GPU of tests/emulation/cuda.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "common/cuda_check.cuh"

#if defined(KTFAST_CUDA_EMULATION)
#define KTFAST_DYNAMIC_SHARED(name) \
  unsigned char* const name = ::cuda_emulation::machine.dynamic_shared()
#else
// Bulk copies and matrix descriptors need this alignment.
#define KTFAST_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#endif

namespace ktfast::cuda {

// Launches kernel<<<grid, block, shared_bytes, stream>>>(args...) and checks for errors.
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, CUstream_st* stream,
            const A&... args) {
#if defined(KTFAST_CUDA_EMULATION)
  static_cast<void>(stream);
  ::cuda_emulation::launch(kernel, grid, block, shared_bytes, args...);
#else
  constexpr size_t kGranted = 48 << 10;  // a kernel must request more than this
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
