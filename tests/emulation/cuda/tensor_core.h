// The instructions of tensor cores: ldmatrix and mma of a warp, wgmma of a warpgroup of four warps.
//
// Which lane holds which element of a fragment: PTX ISA, "Warp Level Matrix Multiply-Accumulate
// Instructions", Matrix Fragments for mma.m16n8k16 with floating point type, for mma.m16n8k32, and
// ldmatrix; "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions", Matrix
// Fragments for wgmma.mma_async.m64nNk16 (D), matrix descriptor and no-swizzle K-major layout.
#pragma once

#include "machine.h"

namespace cuda_emulation {

void ldmatrix_x4(uint32_t* r, const void* row, Site site);
void mma_s8(int32_t* c, const uint32_t* a, const uint32_t* b, Site site);
void mma_f16(float* c, const uint32_t* a, const uint32_t* b, Site site);

void wgmma_s8(int32_t* c, uint64_t a, uint64_t b, bool accumulate, Site site);
void wgmma_f16(float* c, uint64_t a, uint64_t b, bool accumulate, Site site);
void wgmma_fence(Site site);
void wgmma_fence_sums(void* sums);
void wgmma_commit(Site site);
void wgmma_wait(int newest, Site site);
void set_registers(Site site);

}  // namespace cuda_emulation
