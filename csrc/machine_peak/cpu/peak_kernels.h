// The loops that machine_peak times: one function per instruction set and type.
#pragma once

#include <cstdint>

namespace ktfast::cpu {

// A multiply-add takes at most 5 cycles, and two start per cycle. So 12 accumulators keep the units
// busy, and with the two factors they fit the 16 registers of AVX2.
constexpr int kAccumulators = 12;

// Runs `rounds` multiply-adds on each of kAccumulators vectors. Returns their sum, so that the
// compiler cannot remove the loop.
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
float peak_fp32_neon(int64_t rounds);

}  // namespace ktfast::cpu
