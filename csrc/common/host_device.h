// Marks functions that the CPU and the CUDA backends share.
//
// These functions are always inlined. Files that are built with flags for AVX-512 include them too.
// If such a file had a copy of its own, the linker could keep that copy for every caller.
#pragma once

#if defined(__CUDACC__)
#define KTFAST_HD __host__ __device__ __forceinline__
#else
#define KTFAST_HD inline __attribute__((always_inline))
#endif
