// The product of int8 codes with AVX2, whose instruction adds up products of bytes in 16 bits.
//
// A step multiplies four words. It adds eight products to each 16-bit sum before it widens the sum
// to 32 bits. To prevent an overflow, codes of centres lie between -63 and 63, so that the offset
// bytes are at most 127. A row's scale is chosen such that the magnitudes of the eight codes that
// meet in a sum add up to at most 258, because 127 x 258 < 2^15.
#include <immintrin.h>

#include "kmeans_assign/certificate.h"
#include "kmeans_assign/cpu/kernels.h"

namespace ktfast::cpu {
namespace {

constexpr int kCenterLevels = 63;
constexpr int kStepBytes = kInt8Words * kWordBytes;
// 258 less 4.5. Rounding to codes raises each of the eight magnitudes by up to 1/2, so their sum by
// up to 4. The other 1/2 is a margin for the float32 arithmetic.
constexpr float kLargestSum = 253.5f;

// Adds the magnitudes of those of 16 features whose products meet in one sum. Lane 0 gets the sum
// of the features i with an even i / 2, lane 2 the sum of the others.
__m128 meeting(__m256 low, __m256 high) {
  const __m256 sums = _mm256_add_ps(low, high);  // adds i and i + 8
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
  return _mm_add_ps(four, _mm_movehdup_ps(four));  // lanes 1 and 3 are unused
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

// Multiplies six rows by eight centres. Four words of the centres stay in registers while they are
// multiplied by each row.
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

// Multiplies a column, which fits a first-level cache, by all rows before the next column.
void product(const PanelProduct& p) {
  for (int column = 0; column < p.columns; ++column) {
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

void set_int8_kernels_avx2(AssignKernels& kernels) {
  kernels.row_reach = row_reach;
  kernels.center_levels = kCenterLevels;
  kernels.product = product;
}

}  // namespace ktfast::cpu
