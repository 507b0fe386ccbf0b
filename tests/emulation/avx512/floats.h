// Arithmetic and conversions of float32, float64 and bfloat16.
#pragma once

#include "registers.h"

namespace avx512_emulation {

// Intrinsics that are the same as those of AVX2 or FMA in each half.
#define AVX512_EMULATION_2(Whole, Pair, name)                                \
  inline Whole name(Whole a, Whole b) {                                      \
    const Pair x(a), y(b);                                                   \
    return Pair(_mm256_##name(x.low, y.low), _mm256_##name(x.high, y.high)); \
  }
AVX512_EMULATION_2(__m512, Floats, add_ps)
AVX512_EMULATION_2(__m512, Floats, sub_ps)
AVX512_EMULATION_2(__m512, Floats, mul_ps)
AVX512_EMULATION_2(__m512, Floats, max_ps)
AVX512_EMULATION_2(__m512d, Doubles, add_pd)
AVX512_EMULATION_2(__m512d, Doubles, sub_pd)
AVX512_EMULATION_2(__m512d, Doubles, mul_pd)

#define AVX512_EMULATION_3(name)                                                              \
  inline __m512 name(__m512 a, __m512 b, __m512 c) {                                          \
    const Floats x(a), y(b), z(c);                                                            \
    return Floats(_mm256_##name(x.low, y.low, z.low), _mm256_##name(x.high, y.high, z.high)); \
  }
AVX512_EMULATION_3(fmadd_ps)
AVX512_EMULATION_3(fnmadd_ps)
#undef AVX512_EMULATION_3

inline __m512 setzero_ps() { return Floats(_mm256_setzero_ps(), _mm256_setzero_ps()); }
inline __m512d setzero_pd() { return Doubles(_mm256_setzero_pd(), _mm256_setzero_pd()); }
inline __m512 set1_ps(float value) { return Floats(_mm256_set1_ps(value), _mm256_set1_ps(value)); }
inline float cvtss_f32(__m512 v) { return _mm256_cvtss_f32(Floats(v).low); }

inline __m512 abs_ps(__m512 v) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return Floats(_mm256_andnot_ps(sign, Floats(v).low), _mm256_andnot_ps(sign, Floats(v).high));
}

template <int kPredicate>
inline __mmask16 cmp_ps_mask(__m512 a, __m512 b) {
  const Floats x(a), y(b);
  const int low = _mm256_movemask_ps(_mm256_cmp_ps(x.low, y.low, kPredicate));
  const int high = _mm256_movemask_ps(_mm256_cmp_ps(x.high, y.high, kPredicate));
  return static_cast<__mmask16>(high << 8 | low);
}

// --- Halves and the other register types
inline __m512i castps_si512(__m512 v) { return reinterpret_cast<__m512i>(v); }
inline __m512 castsi512_ps(__m512i v) { return reinterpret_cast<__m512>(v); }
inline __m256 castps512_ps256(__m512 v) { return Floats(v).low; }
inline __m256d castpd512_pd256(__m512d v) { return Doubles(v).low; }
inline __m512 castps256_ps512(__m256 v) { return Floats(v, _mm256_castsi256_ps(undefined())); }
inline __m256 extractf32x8_ps(__m512 v, int i) { return i == 0 ? Floats(v).low : Floats(v).high; }
inline __m256d extractf64x4_pd(__m512d v, int i) {
  return i == 0 ? Doubles(v).low : Doubles(v).high;
}
inline __m512 insertf32x8(__m512 v, __m256 half, int i) {
  return i == 0 ? Floats(half, Floats(v).high) : Floats(Floats(v).low, half);
}

// --- Conversions
inline __m512 cvtepi32_ps(__m512i v) {
  return Floats(_mm256_cvtepi32_ps(Integers(v).low), _mm256_cvtepi32_ps(Integers(v).high));
}
inline __m512i cvtps_epi32(__m512 v) {
  return Integers(_mm256_cvtps_epi32(Floats(v).low), _mm256_cvtps_epi32(Floats(v).high));
}
inline __m256 cvtpd_ps(__m512d v) {
  return _mm256_set_m128(_mm256_cvtpd_ps(Doubles(v).high), _mm256_cvtpd_ps(Doubles(v).low));
}
inline __m512d cvtps_pd(__m256 v) {
  return Doubles(_mm256_cvtps_pd(_mm256_castps256_ps128(v)),
                 _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)));
}
inline __m512 cvtph_ps(__m256i v) {
  return Floats(_mm256_cvtph_ps(_mm256_castsi256_si128(v)),
                _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1)));
}
template <int kRounding>
inline __m256i cvtps_ph(__m512 v) {
  return _mm256_set_m128i(_mm256_cvtps_ph(Floats(v).high, kRounding),
                          _mm256_cvtps_ph(Floats(v).low, kRounding));
}

// --- Sums and maxima of all lanes, in the order of GCC's intrinsics
inline float reduce_add_ps(__m512 v) {
  const __m256 eight = _mm256_add_ps(Floats(v).high, Floats(v).low);
  const __m128 four = _mm_add_ps(_mm256_extractf128_ps(eight, 1), _mm256_castps256_ps128(eight));
  return (four[0] + four[2]) + (four[1] + four[3]);
}
inline float reduce_max_ps(__m512 v) {
  const __m256 eight = _mm256_max_ps(Floats(v).high, Floats(v).low);
  const __m128 four = _mm_max_ps(_mm256_extractf128_ps(eight, 1), _mm256_castps256_ps128(eight));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// --- bfloat16
// Rounds to nearest, ties to even. Subnormal numbers become zeros, and a NaN becomes a quiet NaN.
inline uint16_t bfloat16_of(uint32_t bits) {
  const uint32_t magnitude = bits & 0x7fffffff;
  const auto upper = static_cast<uint16_t>(bits >> 16);
  if (magnitude < 0x00800000) return upper & 0x8000;
  if (magnitude > 0x7f800000) return upper | 0x0040;
  if (magnitude == 0x7f800000) return upper;
  return static_cast<uint16_t>((bits + 0x7fff + (upper & 1)) >> 16);
}
inline __m512bh cvtne2ps_pbh(__m512 upper, __m512 lower) {
  const Lanes<uint32_t> a(upper), b(lower);
  Lanes<uint16_t> all;
  for (int i = 0; i < 16; ++i) {
    all[i] = bfloat16_of(b[i]);
    all[16 + i] = bfloat16_of(a[i]);
  }
  __m512bh v;
  all.put(&v);
  return v;
}

// In each lane a fused multiply-add of the odd numbers and then one of the even numbers. Both round
// to nearest, ties to even, and treat subnormal numbers as zeros, independently of MXCSR. MXCSR is
// not changed.
inline __m512 dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
  const __m256i upper = _mm256_set1_epi32(-0x10000);
  const Integers x(reinterpret_cast<__m512i>(a)), y(reinterpret_cast<__m512i>(b));
  const auto odd = [&](__m256i v) { return _mm256_and_si256(v, upper); };
  const auto even = [](__m256i v) { return _mm256_slli_epi32(v, 16); };
  Floats to(sum);
  const uint32_t environment = 0x9fc0;  // exceptions masked, flush to zero, denormals are zeros
  uint32_t callers;
  asm("vstmxcsr %[callers]\n\t"
      "vldmxcsr %[environment]\n\t"
      "vfmadd231ps %[odd_a_low], %[odd_b_low], %[low]\n\t"
      "vfmadd231ps %[odd_a_high], %[odd_b_high], %[high]\n\t"
      "vfmadd231ps %[even_a_low], %[even_b_low], %[low]\n\t"
      "vfmadd231ps %[even_a_high], %[even_b_high], %[high]\n\t"
      "vldmxcsr %[callers]"
      : [low] "+&x"(to.low), [high] "+&x"(to.high), [callers] "=m"(callers)
      : [odd_a_low] "x"(odd(x.low)), [odd_b_low] "x"(odd(y.low)), [odd_a_high] "x"(odd(x.high)),
        [odd_b_high] "x"(odd(y.high)), [even_a_low] "x"(even(x.low)), [even_b_low] "x"(even(y.low)),
        [even_a_high] "x"(even(x.high)), [even_b_high] "x"(even(y.high)),
        [environment] "m"(environment));
  return to;
}

}  // namespace avx512_emulation
