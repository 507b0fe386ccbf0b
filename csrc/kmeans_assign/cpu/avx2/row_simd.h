// Loads elements of rows into AVX2 registers. Only files in avx2/ include this header.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "common/element.h"

namespace ktfast::cpu {
namespace {

// Like with_element of element.h, which is not used here because its exception instantiates
// standard templates.
template <class F>
auto by_type(ElementType type, F f) {
  switch (type) {
    case ElementType::float64:
      return f(static_cast<const double*>(nullptr));
    case ElementType::float16:
      return f(static_cast<const float16_bits*>(nullptr));
    case ElementType::bfloat16:
      return f(static_cast<const bfloat16_bits*>(nullptr));
    case ElementType::uint8:
      return f(static_cast<const uint8_t*>(nullptr));
    case ElementType::int8:
      return f(static_cast<const int8_t*>(nullptr));
    case ElementType::float32:
      break;
  }
  return f(static_cast<const float*>(nullptr));
}

// Masks of the first `count` of eight 32-bit lanes, and of four 64-bit lanes.
inline __m256i first_of_8(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline __m256i first_of_4(int64_t count) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}

// Loads eight elements as float.
inline __m256 load_8(const float* x) { return _mm256_loadu_ps(x); }
inline __m256 load_8(const float16_bits* x) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
}
inline __m256 load_8(const bfloat16_bits* x) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline __m256 load_8(const uint8_t* x) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(x));
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
}
inline __m256 load_8(const int8_t* x) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(x));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}

// Loads four elements as double.
inline __m256d load_4(const double* x) { return _mm256_loadu_pd(x); }
inline __m256d load_4(const float* x) { return _mm256_cvtps_pd(_mm_loadu_ps(x)); }
inline __m256d load_4(const float16_bits* x) {
  return _mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x))));
}
inline __m256d load_4(const bfloat16_bits* x) {
  const __m128i bits = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(x));
  return _mm256_cvtps_pd(_mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(bits), 16)));
}
inline __m128i four_bytes(const void* x) {
  int32_t bytes;
  std::memcpy(&bytes, x, sizeof bytes);
  return _mm_cvtsi32_si128(bytes);
}
inline __m256d load_4(const uint8_t* x) {
  return _mm256_cvtepi32_pd(_mm_cvtepu8_epi32(four_bytes(x)));
}
inline __m256d load_4(const int8_t* x) {
  return _mm256_cvtepi32_pd(_mm_cvtepi8_epi32(four_bytes(x)));
}

// Loads fewer elements, followed by zeros. AVX2 has no masked loads of 8 or 16 bits, so narrow
// elements are copied first.
template <class T>
__m256 load_first_8(const T* x, int64_t count) {
  T padded[8] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = x[i];
  return load_8(padded);
}
inline __m256 load_first_8(const float* x, int64_t count) {
  return _mm256_maskload_ps(x, first_of_8(count));
}

template <class T>
__m256d load_first_4(const T* x, int64_t count) {
  T padded[4] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = x[i];
  return load_4(padded);
}
inline __m256d load_first_4(const float* x, int64_t count) {
  return _mm256_cvtps_pd(_mm_maskload_ps(x, _mm256_castsi256_si128(first_of_8(count))));
}
inline __m256d load_first_4(const double* x, int64_t count) {
  return _mm256_maskload_pd(x, first_of_4(count));
}

// x - mean for eight features. float64 rows subtract in float64 and then round.
template <class T>
__m256 shifted_8(const T* x, __m256 mean) {
  return _mm256_sub_ps(load_8(x), mean);
}
inline __m256 shifted_8(const double* x, __m256 mean) {
  const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(mean));
  const __m256d high = _mm256_cvtps_pd(_mm256_extractf128_ps(mean, 1));
  return _mm256_set_m128(_mm256_cvtpd_ps(_mm256_sub_pd(load_4(x + 4), high)),
                         _mm256_cvtpd_ps(_mm256_sub_pd(load_4(x), low)));
}

// x - mean for the first `count` of eight features, followed by zeros.
template <class T>
__m256 shifted_8(const T* x, const float* mean, int64_t count) {
  if (count >= 8) return _mm256_sub_ps(load_8(x), load_8(mean));
  return _mm256_sub_ps(load_first_8(x, count), load_first_8(mean, count));
}
// The same for float64 rows: subtracts in float64 and then rounds.
inline __m128 shifted_4(const double* x, const float* mean, int64_t count) {
  if (count <= 0) return _mm_setzero_ps();
  if (count >= 4) return _mm256_cvtpd_ps(_mm256_sub_pd(load_4(x), load_4(mean)));
  return _mm256_cvtpd_ps(_mm256_sub_pd(load_first_4(x, count), load_first_4(mean, count)));
}
inline __m256 shifted_8(const double* x, const float* mean, int64_t count) {
  const __m128 low = shifted_4(x, mean, count), high = shifted_4(x + 4, mean + 4, count - 4);
  return _mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1);
}

// Squares of four differences, or of the first `left` of them, followed by zeros.
template <class T>
__m256d squares_4(const T* x, const double* c, int64_t left) {
  const __m256d x_4 = left >= 4 ? load_4(x) : load_first_4(x, left);
  const __m256d c_4 = left >= 4 ? load_4(c) : load_first_4(c, left);
  const __m256d rest = _mm256_sub_pd(x_4, c_4);
  return _mm256_mul_pd(rest, rest);
}

// The exact distance of certificate.h: lane l of register i is partial sum 4 i + l. Fused
// multiply-adds are never used.
template <class T>
double exact_distance(const T* x, const double* c, int64_t length) {
  __m256d sums[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) sums[i] = _mm256_setzero_pd();
  int64_t p = 0;
  if (length >= 32) {  // 0 + square has the bits of the square
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const __m256d rest = _mm256_sub_pd(load_4(x + 4 * i), _mm256_loadu_pd(c + 4 * i));
      sums[i] = _mm256_mul_pd(rest, rest);
    }
    p = 32;
  }
  for (; p + 32 <= length; p += 32) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const __m256d rest = _mm256_sub_pd(load_4(x + p + 4 * i), _mm256_loadu_pd(c + p + 4 * i));
      sums[i] = _mm256_add_pd(sums[i], _mm256_mul_pd(rest, rest));
    }
  }
  if (p < length) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const int64_t left = length - p - 4 * i;
      if (left <= 0) break;
      sums[i] = _mm256_add_pd(sums[i], squares_4(x + p + 4 * i, c + p + 4 * i, left));
    }
  }
  const __m256d four_0 = _mm256_add_pd(sums[0], sums[4]), four_1 = _mm256_add_pd(sums[1], sums[5]);
  const __m256d four_2 = _mm256_add_pd(sums[2], sums[6]), four_3 = _mm256_add_pd(sums[3], sums[7]);
  const __m256d lanes = _mm256_add_pd(_mm256_add_pd(four_0, four_2), _mm256_add_pd(four_1, four_3));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(lanes), _mm256_extractf128_pd(lanes, 1));
  return _mm_cvtsd_f64(two) + _mm_cvtsd_f64(_mm_unpackhi_pd(two, two));
}

// The exact distance for at most 16 features, where the partial sums from the 16th on are zero.
template <class T>
double exact_short_distance(const T* x, const double* c, int64_t length) {
  __m256d lanes = squares_4(x, c, length);
  if (length > 8) lanes = _mm256_add_pd(lanes, squares_4(x + 8, c + 8, length - 8));
  if (length > 4) {
    __m256d odd = squares_4(x + 4, c + 4, length - 4);
    if (length > 12) odd = _mm256_add_pd(odd, squares_4(x + 12, c + 12, length - 12));
    lanes = _mm256_add_pd(lanes, odd);
  }
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(lanes), _mm256_extractf128_pd(lanes, 1));
  return _mm_cvtsd_f64(two) + _mm_cvtsd_f64(_mm_unpackhi_pd(two, two));
}

}  // namespace
}  // namespace ktfast::cpu
