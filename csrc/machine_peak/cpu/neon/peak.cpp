#include <arm_neon.h>

#include "machine_peak/cpu/peak_kernels.h"

namespace ktfast::cpu {

float peak_fp32_neon(int64_t rounds) {
  const volatile float factor = 1.0F;
  const float32x4_t a = vdupq_n_f32(factor);
  const float32x4_t b = vdupq_n_f32(factor);
  float32x4_t sums[kAccumulators];
  for (auto& sum : sums) sum = vdupq_n_f32(0);
  for (int64_t round = 0; round < rounds; ++round) {
    for (auto& sum : sums) sum = vfmaq_f32(sum, a, b);
  }
  for (int i = 1; i < kAccumulators; ++i) sums[0] = vaddq_f32(sums[0], sums[i]);
  return vaddvq_f32(sums[0]);
}

}  // namespace ktfast::cpu
