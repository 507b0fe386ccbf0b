// The loops that machine_peak times: one function per instruction set and type.
#pragma once

#include <cstdint>

namespace ktfast::cpu {

// A multiply-add takes at most 5 cycles and two start in each: 12 accumulators keep them all busy
// and fit the 16 registers of AVX2 beside the two factors.
constexpr int kAccumulators = 12;

// Multiplies and adds `rounds` times into each of kAccumulators vectors; returns their sum, which
// keeps the work from being optimised away.
using PeakKernel = float (*)(int64_t rounds);

struct PeakLoop {
  PeakKernel run;
  int64_t operations;  // of one round, 0: not available
};

float peak_fp32_scalar(int64_t rounds);
float peak_fp32_avx2(int64_t rounds);
float peak_fp32_avx512(int64_t rounds);
float peak_bf16_avx512(int64_t rounds);
float peak_int8_avx512(int64_t rounds);
float peak_bf16_amx(int64_t rounds);
float peak_int8_amx(int64_t rounds);

}  // namespace ktfast::cpu
