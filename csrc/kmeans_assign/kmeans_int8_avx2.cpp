// int8 codes with AVX2, which multiplies bytes but adds their products up in 16 bits.
//
// A step adds four words, eight products of each of two sums, before it widens them to 32 bits. So
// that nothing overflows, codes of centres lie between -63 and 63, at most 127 as they are offset,
// and a row's scale is chosen such that any eight of its codes that meet in a sum have magnitudes
// of at most 258 together: 127 x 258 < 2^15.
#include <immintrin.h>

#include "kmeans_assign/assign_kernels.h"
#include "kmeans_assign/assign_math.h"

namespace ktfast::cpu {
namespace {

constexpr int kCenterLevels = 63;
constexpr int kStepBytes = kInt8Words * kWordBytes;
// Rounding adds up to 1/2 to each of eight magnitudes.
constexpr float kLargestSum = 253.5f;

// Magnitudes of 16 features, those that meet in a sum added up: in the two halves of 8 features
// lane i meets the others of the same parity of i / 2.
__m128 meeting(__m256 low, __m256 high) {
  const __m256 sums = _mm256_add_ps(low, high);  // i and i + 8
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
  return _mm_add_ps(four, _mm_movehdup_ps(four));  // lanes 0 and 2 hold what counts
}

__m256 magnitudes(const float* values) {
  return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), _mm256_loadu_ps(values));
}

float row_reach(const float* values, int64_t length, float largest) {
  __m128 most = _mm_setzero_ps();
  int64_t p = 0;
  for (; p + kStepBytes <= length; p += kStepBytes) {
    most = _mm_max_ps(most, meeting(magnitudes(values + p), magnitudes(values + p + 8)));
  }
  if (p < length) {
    float rest[kStepBytes] = {};
    for (int64_t i = 0; p + i < length; ++i) rest[i] = values[p + i];
    most = _mm_max_ps(most, meeting(magnitudes(rest), magnitudes(rest + 8)));
  }
  const float sum = _mm_cvtss_f32(_mm_max_ps(most, _mm_movehl_ps(most, most)));
  const float reach = sum * (127 / kLargestSum);
  return reach > largest ? reach : largest;
}

// The eight numbers from p on, zeros behind the last.
__m256 eight(const float* values, int64_t p, int64_t length) {
  if (p + 8 <= length) return _mm256_loadu_ps(values + p);
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const auto left = static_cast<int32_t>(length - p);
  return _mm256_maskload_ps(values + p, _mm256_cmpgt_epi32(_mm256_set1_epi32(left), lane));
}

float sum_of(__m256 lanes) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// `codes` has room for whole steps, and holds zeros there.
Encoded encode(const float* values, int64_t length, float reach, CodeType, void* codes) {
  const float scale = int8_scale(reach);
  const __m256 inverse = _mm256_set1_ps(1 / scale), scales = _mm256_set1_ps(scale);
  __m256 squares = _mm256_setzero_ps();
  __m256i total = _mm256_setzero_si256();
  for (int64_t p = 0; p < length; p += 8) {
    const __m256 value = eight(values, p, length);
    const __m256i rounded = _mm256_cvtps_epi32(_mm256_mul_ps(value, inverse));
    const __m256 rest = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(rounded), scales, value);
    squares = _mm256_fmadd_ps(rest, rest, squares);
    total = _mm256_add_epi32(total, rounded);
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(static_cast<char*>(codes) + p),
                     _mm_packs_epi16(words, words));
  }
  int32_t sums[8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums), total);
  int32_t sum = 0;
  for (const int32_t lane : sums) sum += lane;
  return {scale, sum_of(squares), sum};
}

// Six rows by eight centres. Four words of the centres stay in registers while they meet each row.
__attribute__((noinline)) void product_half_column(const char* centers, const char* row,
                                                   int64_t stride, int64_t words, bool accumulate,
                                                   int32_t* to) {
  constexpr int kWordStride = kColumnWidth * kWordBytes;
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum[kTileRows];
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r) sum[r] = _mm256_setzero_si256();
  for (int64_t w = 0; w < words; w += kInt8Words) {
    __m256i c[kInt8Words];
#pragma GCC unroll 4
    for (int i = 0; i < kInt8Words; ++i) {
      c[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(centers + i * kWordStride));
    }
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      const auto* x = reinterpret_cast<const int32_t*>(row + r * stride);
      __m256i narrow = _mm256_maddubs_epi16(c[0], _mm256_set1_epi32(x[0]));
#pragma GCC unroll 4
      for (int i = 1; i < kInt8Words; ++i) {
        narrow = _mm256_add_epi16(narrow, _mm256_maddubs_epi16(c[i], _mm256_set1_epi32(x[i])));
      }
      sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(narrow, ones));
    }
    row += kStepBytes;
    centers += kInt8Words * kWordStride;
  }
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r, to += kPanelWidth) {
    auto* place = reinterpret_cast<__m256i*>(to);
    if (accumulate) sum[r] = _mm256_add_epi32(_mm256_loadu_si256(place), sum[r]);
    _mm256_storeu_si256(place, sum[r]);
  }
}

// A column, which fits a first-level cache, goes past all rows before the next.
void product(const PanelProduct& p) {
  for (int column = 0; column < kColumns; ++column) {
    auto* to = static_cast<int32_t*>(p.out) + column * kColumnWidth;
    for (int64_t tile = 0; tile < p.n_tiles; ++tile, to += kTileRows * kPanelWidth) {
      for (int half = 0; half < 2; ++half) {
        product_half_column(p.column(column) + half * 8 * kWordBytes, p.row(tile), p.stride,
                            p.words, p.accumulate, to + half * 8);
      }
    }
  }
}

}  // namespace

void use_int8_avx2(AssignKernels& kernels) {
  kernels.encode = encode;
  kernels.row_reach = row_reach;
  kernels.center_levels = kCenterLevels;
  kernels.product = product;
}

}  // namespace ktfast::cpu
