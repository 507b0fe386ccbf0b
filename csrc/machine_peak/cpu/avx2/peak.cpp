#include <immintrin.h>

#include "machine_peak/cpu/peak_kernels.h"

namespace ktfast::cpu {

float peak_fp32_avx2(int64_t rounds) {
  const volatile float factor = 1.0F;
  const __m256 a = _mm256_set1_ps(factor);
  const __m256 b = _mm256_set1_ps(factor);
  __m256 sums[kAccumulators];
  for (auto& sum : sums) sum = _mm256_setzero_ps();
  for (int64_t round = 0; round < rounds; ++round) {
    for (auto& sum : sums) sum = _mm256_fmadd_ps(a, b, sum);
  }
  for (int i = 1; i < kAccumulators; ++i) sums[0] = _mm256_add_ps(sums[0], sums[i]);
  return _mm256_cvtss_f32(sums[0]);
}

}  // namespace ktfast::cpu
