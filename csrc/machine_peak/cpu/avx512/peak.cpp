#include <immintrin.h>

#include "machine_peak/cpu/peak_kernels.h"

// Attributes of the functions enable the extensions, so that this file can be built with the flags
// of avx512/.
#define KTFAST_TARGET(extension) __attribute__((target("avx512f,avx512bw,avx512vl," extension)))

namespace ktfast::cpu {

float peak_fp32_avx512(int64_t rounds) {
  const volatile float factor = 1.0F;
  const __m512 a = _mm512_set1_ps(factor);
  const __m512 b = _mm512_set1_ps(factor);
  __m512 sums[kAccumulators];
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t round = 0; round < rounds; ++round) {
    for (auto& sum : sums) sum = _mm512_fmadd_ps(a, b, sum);
  }
  for (int i = 1; i < kAccumulators; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}

KTFAST_TARGET("avx512bf16")
float peak_bf16_avx512(int64_t rounds) {
  const volatile float factor = 1.0F;
  const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(factor), _mm512_set1_ps(factor));
  const __m512bh b = _mm512_cvtne2ps_pbh(_mm512_set1_ps(factor), _mm512_set1_ps(factor));
  __m512 sums[kAccumulators];
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t round = 0; round < rounds; ++round) {
    for (auto& sum : sums) sum = _mm512_dpbf16_ps(sum, a, b);
  }
  for (int i = 1; i < kAccumulators; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}

KTFAST_TARGET("avx512vnni")
float peak_int8_avx512(int64_t rounds) {
  const volatile char factor = 1;
  const __m512i a = _mm512_set1_epi8(factor);
  const __m512i b = _mm512_set1_epi8(factor);
  __m512i sums[kAccumulators];
  for (auto& sum : sums) sum = _mm512_setzero_si512();
  for (int64_t round = 0; round < rounds; ++round) {
    for (auto& sum : sums) sum = _mm512_dpbusd_epi32(sum, a, b);
  }
  for (int i = 1; i < kAccumulators; ++i) sums[0] = _mm512_add_epi32(sums[0], sums[i]);
  return static_cast<float>(_mm512_cvtsi512_si32(sums[0]));
}

}  // namespace ktfast::cpu
