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
  static_assert(kAccumulators == 12);
  // Twelve named vectors: for an array of them GCC 12 adds two register moves per multiply-add,
  // which cost two thirds of the rate on Cascade Lake.
  __m512i s0 = _mm512_setzero_si512();
  __m512i s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0, s8 = s0, s9 = s0, s10 = s0,
          s11 = s0;
  for (int64_t round = 0; round < rounds; ++round) {
    s0 = _mm512_dpbusd_epi32(s0, a, b);
    s1 = _mm512_dpbusd_epi32(s1, a, b);
    s2 = _mm512_dpbusd_epi32(s2, a, b);
    s3 = _mm512_dpbusd_epi32(s3, a, b);
    s4 = _mm512_dpbusd_epi32(s4, a, b);
    s5 = _mm512_dpbusd_epi32(s5, a, b);
    s6 = _mm512_dpbusd_epi32(s6, a, b);
    s7 = _mm512_dpbusd_epi32(s7, a, b);
    s8 = _mm512_dpbusd_epi32(s8, a, b);
    s9 = _mm512_dpbusd_epi32(s9, a, b);
    s10 = _mm512_dpbusd_epi32(s10, a, b);
    s11 = _mm512_dpbusd_epi32(s11, a, b);
  }
  const __m512i others[] = {s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11};
  for (const auto& sum : others) s0 = _mm512_add_epi32(s0, sum);
  // gcc 10 has no intrinsic that reads an integer of 512 bits at once.
  const __m128i lowest = _mm256_castsi256_si128(_mm512_castsi512_si256(s0));
  return static_cast<float>(_mm_cvtsi128_si32(lowest));
}

}  // namespace ktfast::cpu
