// Arithmetic, conversions and permutations of integers.
#pragma once

#include "floats.h"
#include "registers.h"

namespace avx512_emulation {

AVX512_EMULATION_2(__m512i, Integers, add_epi16)
AVX512_EMULATION_2(__m512i, Integers, add_epi32)
AVX512_EMULATION_2(__m512i, Integers, add_epi64)
AVX512_EMULATION_2(__m512i, Integers, sub_epi16)
AVX512_EMULATION_2(__m512i, Integers, adds_epu16)
AVX512_EMULATION_2(__m512i, Integers, mullo_epi16)
AVX512_EMULATION_2(__m512i, Integers, madd_epi16)
AVX512_EMULATION_2(__m512i, Integers, maddubs_epi16)
#undef AVX512_EMULATION_2

inline __m512i both(__m256i half) { return Integers(half, half); }
inline __m512i setzero_si512() { return both(_mm256_setzero_si256()); }
inline __m512i set1_epi8(char value) { return both(_mm256_set1_epi8(value)); }
inline __m512i set1_epi16(short value) { return both(_mm256_set1_epi16(value)); }
inline __m512i set1_epi32(int value) { return both(_mm256_set1_epi32(value)); }

inline __m512i and_si512(__m512i a, __m512i b) {
  return Integers(_mm256_and_si256(Integers(a).low, Integers(b).low),
                  _mm256_and_si256(Integers(a).high, Integers(b).high));
}
inline __m512i slli_epi32(__m512i v, unsigned count) {
  const int bits = static_cast<int>(count);
  return Integers(_mm256_slli_epi32(Integers(v).low, bits),
                  _mm256_slli_epi32(Integers(v).high, bits));
}
inline __m512i srli_epi32(__m512i v, unsigned count) {
  const int bits = static_cast<int>(count);
  return Integers(_mm256_srli_epi32(Integers(v).low, bits),
                  _mm256_srli_epi32(Integers(v).high, bits));
}

inline __mmask32 cmpgt_epu16_mask(__m512i a, __m512i b) {
  const Lanes<uint16_t> x(a), y(b);
  __mmask32 mask = 0;
  for (int i = 0; i < x.n; ++i) mask |= static_cast<__mmask32>(x[i] > y[i]) << i;
  return mask;
}
inline __m512i mask_add_epi16(__m512i otherwise, __mmask32 mask, __m512i a, __m512i b) {
  const Lanes<uint16_t> sum(add_epi16(a, b));
  Lanes<uint16_t> all(otherwise);
  for (int i = 0; i < all.n; ++i) {
    if (mask >> i & 1) all[i] = sum[i];
  }
  __m512i v;
  all.put(&v);
  return v;
}

// Adds, in each lane, the products of four unsigned bytes of a and four signed bytes of b, modulo
// 2^32.
inline __m256i add_byte_products(__m256i sum, __m256i a, __m256i b) {
  const __m256i even_a = _mm256_and_si256(a, _mm256_set1_epi16(0xff));
  const __m256i odd_a = _mm256_srli_epi16(a, 8);
  const __m256i even_b = _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8);
  const __m256i odd_b = _mm256_srai_epi16(b, 8);
  const __m256i even = _mm256_madd_epi16(even_a, even_b), odd = _mm256_madd_epi16(odd_a, odd_b);
  return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
inline __m512i dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
  const Integers s(sum), x(a), y(b);
  return Integers(add_byte_products(s.low, x.low, y.low),
                  add_byte_products(s.high, x.high, y.high));
}

// --- Halves
inline __m256i castsi512_si256(__m512i v) { return Integers(v).low; }
inline __m512i castsi256_si512(__m256i v) { return Integers(v, undefined()); }
inline __m256i extracti64x4_epi64(__m512i v, int i) {
  return i == 0 ? Integers(v).low : Integers(v).high;
}
inline __m512i inserti64x4(__m512i v, __m256i half, int i) {
  return i == 0 ? Integers(half, Integers(v).high) : Integers(Integers(v).low, half);
}

// --- Wider integers
#define AVX512_EMULATION_WIDEN(name)                                \
  inline __m512i name(__m256i v) {                                  \
    return Integers(_mm256_##name(_mm256_castsi256_si128(v)),       \
                    _mm256_##name(_mm256_extracti128_si256(v, 1))); \
  }
AVX512_EMULATION_WIDEN(cvtepi16_epi32)
AVX512_EMULATION_WIDEN(cvtepu16_epi32)
AVX512_EMULATION_WIDEN(cvtepi32_epi64)
#undef AVX512_EMULATION_WIDEN
inline __m512i cvtepi8_epi32(__m128i v) {
  return Integers(_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(_mm_srli_si128(v, 8)));
}
inline __m512i cvtepu8_epi32(__m128i v) {
  return Integers(_mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8)));
}

// --- Permutations: words of a, or behind them of b, by the lowest bits of an index
inline __m512i permutex2var_epi16(__m512i a, __m512i index, __m512i b) {
  const Lanes<uint16_t> x(a), y(b), from(index);
  Lanes<uint16_t> all;
  for (int i = 0; i < all.n; ++i) all[i] = (from[i] & 32 ? y : x)[from[i] & 31];
  __m512i v;
  all.put(&v);
  return v;
}
inline __m512i permutexvar_epi16(__m512i index, __m512i a) {
  return permutex2var_epi16(a, and_si512(index, set1_epi16(31)), a);
}

// --- The sum of all lanes, modulo 2^64
inline long long reduce_add_epi64(__m512i v) {
  const Lanes<uint64_t> all(v);
  uint64_t sum = 0;
  for (const uint64_t lane : all.lane) sum += lane;
  return static_cast<long long>(sum);
}

}  // namespace avx512_emulation
