// Product of float32 codes, selection and single scores with AVX2 and FMA.
#include <immintrin.h>

#include "kmeans_assign/assign_kernels.h"

namespace ktfast::cpu {
namespace {

// Six rows by one column of 16 centres: 12 of 16 registers accumulate. Out of line, or GCC 12
// spills them when it is inlined into its caller.
__attribute__((noinline)) void product_column(const char* centers, const char* row, int64_t stride,
                                              int64_t words, bool accumulate, float* to) {
  __m256 sum[kTileRows][2];
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_ps();
  for (int64_t w = 0; w < words; ++w, row += kWordBytes, centers += kColumnWidth * kWordBytes) {
    const __m256 c0 = _mm256_loadu_ps(reinterpret_cast<const float*>(centers));
    const __m256 c1 = _mm256_loadu_ps(reinterpret_cast<const float*>(centers) + 8);
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      const __m256 x = _mm256_broadcast_ss(reinterpret_cast<const float*>(row + r * stride));
      sum[r][0] = _mm256_fmadd_ps(x, c0, sum[r][0]);
      sum[r][1] = _mm256_fmadd_ps(x, c1, sum[r][1]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r, to += kPanelWidth) {
    if (accumulate) {
      sum[r][0] = _mm256_add_ps(_mm256_loadu_ps(to), sum[r][0]);
      sum[r][1] = _mm256_add_ps(_mm256_loadu_ps(to + 8), sum[r][1]);
    }
    _mm256_storeu_ps(to, sum[r][0]);
    _mm256_storeu_ps(to + 8, sum[r][1]);
  }
}

// A column, which fits a first-level cache, goes past all rows before the next.
void product(const PanelProduct& p) {
  for (int column = 0; column < kColumns; ++column) {
    for (int64_t tile = 0; tile < p.n_tiles; ++tile) {
      product_column(
          p.column(column), p.row(tile), p.stride, p.words, p.accumulate,
          static_cast<float*>(p.out) + tile * kTileRows * kPanelWidth + column * kColumnWidth);
    }
  }
}

template <bool kInt>
__m256 score_part(const void* products, int index) {
  if constexpr (kInt) {
    return _mm256_cvtepi32_ps(_mm256_loadu_si256(
        reinterpret_cast<const __m256i*>(static_cast<const int32_t*>(products) + index)));
  } else {
    return _mm256_loadu_ps(static_cast<const float*>(products) + index);
  }
}

template <bool kInt>
bool select(const ScreenTile& tile, uint64_t* masks) {
  uint64_t any = 0;
  for (int r = 0; r < kTileRows; ++r) {
    const __m256 inverse = _mm256_set1_ps(tile.row_inverse[r]);
    const __m256 row_tail = _mm256_set1_ps(tile.row_tail[r]);
    const __m256 limit = _mm256_set1_ps(tile.row_limit[r]);
    uint64_t mask = 0;
    for (int c = 0; c < kPanelWidth; c += 8) {
      __m256 value = score_part<kInt>(tile.products, r * kPanelWidth + c);
      if (tile.tails != nullptr) {
        value = _mm256_fmadd_ps(row_tail, _mm256_loadu_ps(tile.tails + c), value);
      }
      value = _mm256_fnmadd_ps(inverse, _mm256_loadu_ps(tile.half_norms + c), value);
      const int bits = _mm256_movemask_ps(_mm256_cmp_ps(value, limit, _CMP_NLT_UQ));
      mask |= static_cast<uint64_t>(static_cast<uint32_t>(bits)) << c;
    }
    masks[r] = mask;
    any |= mask;
  }
  return any != 0;
}

float dot(const float* a, const float* b, int64_t length) {
  __m256 sums[8];
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  int64_t p = 0;
  for (; p + 64 <= length; p += 64) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      sums[i] =
          _mm256_fmadd_ps(_mm256_loadu_ps(a + p + 8 * i), _mm256_loadu_ps(b + p + 8 * i), sums[i]);
    }
  }
  float lanes[8];
  for (int width = 4; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) sums[i] = _mm256_add_ps(sums[i], sums[i + width]);
  }
  _mm256_storeu_ps(lanes, sums[0]);
  for (int lane = 0; p < length; ++p, lane = (lane + 1) % 8) lanes[lane] += a[p] * b[p];
  for (int width = 4; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

}  // namespace

AssignKernels assign_kernels_avx2(CodeType code) {
  AssignKernels kernels = assign_kernels_scalar(code);
  kernels.dot = dot;
  kernels.product = product;
  kernels.select = code == CodeType::int8 ? select<true> : select<false>;
  if (code == CodeType::int8) use_int8_avx2(kernels);
  return kernels;
}

}  // namespace ktfast::cpu
