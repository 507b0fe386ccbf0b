// Marks functions that the CPU and the CUDA backends share.
//
// These functions are always inlined. Files that are built with flags for AVX-512 include them too.
// If such a file had a copy of its own, the linker could keep that copy for every caller.
//
// KTFAST_UNROLL unrolls the loop that follows. An array that is indexed by the counter of a loop
// stays in registers on a GPU only if the loop is unrolled.
#pragma once

#if defined(__CUDACC__)
#define KTFAST_HD __host__ __device__ __forceinline__
#else
#define KTFAST_HD inline __attribute__((always_inline))
#endif

#if defined(__CUDA_ARCH__)
#define KTFAST_UNROLL _Pragma("unroll")
#else
#define KTFAST_UNROLL
#endif
