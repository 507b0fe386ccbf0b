// The functions of kmeans_assign for single rows, with AVX2: shift, lengths, exact distance, codes.
#include "kmeans_assign/certificate.h"
#include "kmeans_assign/cpu/avx2/row_simd.h"
#include "kmeans_assign/cpu/box_gaps.h"
#include "kmeans_assign/cpu/kernels.h"

namespace ktfast::cpu {
namespace {

template <class T>
void shift_of(const T* x, const float* mean, int64_t length, float* to) {
  int64_t p = 0;
  for (; p + 8 <= length; p += 8) _mm256_storeu_ps(to + p, shifted_8(x + p, mean + p, 8));
  if (p == length) return;
  _mm256_maskstore_ps(to + p, first_of_8(length - p), shifted_8(x + p, mean + p, length - p));
}

void shift(const void* x, ElementType type, const float* mean, int64_t length, float* to) {
  by_type(type,
          [&](auto* element) { shift_of(static_cast<decltype(element)>(x), mean, length, to); });
}

double squared_distance(const void* x, ElementType type, const double* c, int64_t length) {
  return by_type(type, [&](auto* element) {
    return exact_distance(static_cast<decltype(element)>(x), c, length);
  });
}

float sum_of(__m256 lanes) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

float largest_of(__m256 lanes) {
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

Magnitude magnitude(const float* values, int64_t length) {
  static_assert(kSquareLanes == 64, "eight registers");
  const __m256 no_sign = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  __m256 squares[8], largest = _mm256_setzero_ps();
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) squares[i] = _mm256_setzero_ps();
  int64_t p = 0;
  const auto add = [&](int i, __m256 value) {
    squares[i] = _mm256_fmadd_ps(value, value, squares[i]);
    // The maximum returns its second operand if either operand is NaN, so a later number hides a
    // NaN. The sum of squares keeps the NaN.
    largest = _mm256_max_ps(largest, _mm256_and_ps(value, no_sign));
  };
  for (; p + 64 <= length; p += 64) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) add(i, _mm256_loadu_ps(values + p + 8 * i));
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const int64_t left = length - p - 8 * i;
    if (left > 0)
      add(i, left >= 8 ? load_8(values + p + 8 * i) : load_first_8(values + p + 8 * i, left));
  }
#pragma GCC unroll 3
  for (int width = 4; width > 0; width /= 2) {
#pragma GCC unroll 4
    for (int i = 0; i < width; ++i) squares[i] = _mm256_add_ps(squares[i], squares[i + width]);
  }
  return {sum_of(squares[0]), largest_of(largest)};
}

Encoded encode_float32(const float* values, int64_t length, float* codes) {
  for (int64_t p = 0; p < length; ++p) codes[p] = values[p];
  return {1, 0, 0};
}

Encoded encode_bfloat16(const float* values, int64_t length, uint16_t* codes) {
  __m256 squares = _mm256_setzero_ps();
  for (int64_t p = 0; p < length; p += 8) {
    const int64_t left = length - p;
    const __m256 value = left >= 8 ? load_8(values + p) : load_first_8(values + p, left);
    const __m256i bits = _mm256_castps_si256(value);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, up), 16);
    const __m256 rest = _mm256_sub_ps(value, _mm256_castsi256_ps(_mm256_slli_epi32(rounded, 16)));
    squares = _mm256_fmadd_ps(rest, rest, squares);
    const __m128i narrow =
        _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
    if (left >= 8) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + p), narrow);
    } else {
      std::memcpy(codes + p, &narrow, static_cast<size_t>(left) * sizeof(uint16_t));
    }
  }
  return {1, sum_of(squares), 0};
}

Encoded encode_int8(const float* values, int64_t length, float reach, int8_t* codes) {
  const float scale = int8_scale(reach);
  const __m256 inverse = _mm256_set1_ps(1 / scale);
  __m256 squares = _mm256_setzero_ps();
  __m256i sums = _mm256_setzero_si256();
  for (int64_t p = 0; p < length; p += 8) {
    const int64_t left = length - p;
    const __m256 value = left >= 8 ? load_8(values + p) : load_first_8(values + p, left);
    const __m256i rounded = _mm256_cvtps_epi32(_mm256_mul_ps(value, inverse));
    const __m256 rest = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(rounded), _mm256_set1_ps(scale), value);
    squares = _mm256_fmadd_ps(rest, rest, squares);
    sums = _mm256_add_epi32(sums, rounded);
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
    const __m128i bytes = _mm_packs_epi16(words, words);
    if (left >= 8) {
      _mm_storel_epi64(reinterpret_cast<__m128i*>(codes + p), bytes);
    } else {
      std::memcpy(codes + p, &bytes, static_cast<size_t>(left));
    }
  }
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(1, 0, 3, 2)));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(2, 3, 0, 1)));
  return {scale, sum_of(squares), _mm_cvtsi128_si32(four)};
}

Encoded encode(const float* values, int64_t length, float reach, CodeType code, void* codes) {
  switch (code) {
    case CodeType::int8:
      return encode_int8(values, length, reach, static_cast<int8_t*>(codes));
    case CodeType::bfloat16:
      return encode_bfloat16(values, length, static_cast<uint16_t*>(codes));
    case CodeType::float32:
      break;
  }
  return encode_float32(values, length, static_cast<float*>(codes));
}

}  // namespace

void set_row_kernels_avx2(AssignKernels& kernels) {
  kernels.shift = shift;
  kernels.magnitude = magnitude;
  kernels.squared_distance = squared_distance;
  kernels.encode = encode;
  kernels.box_gaps = box_gaps;
}

}  // namespace ktfast::cpu
