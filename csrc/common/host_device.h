// Marks arithmetic that the CPU and the CUDA backends share.
//
// Such functions are force-inlined: the files built with ISA flags include them too, and an
// out-of-line copy compiled for AVX-512 must never be the one the linker keeps for every caller.
#pragma once

#if defined(__CUDACC__)
#define KTFAST_HD __host__ __device__ __forceinline__
#else
#define KTFAST_HD inline __attribute__((always_inline))
#endif
