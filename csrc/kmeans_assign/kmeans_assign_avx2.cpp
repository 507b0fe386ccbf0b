// Product and selection of kmeans_assign with AVX2 and FMA, for float32 codes.
#include <immintrin.h>

#include "kmeans_assign/assign_kernels.h"

namespace ktfast::cpu {
namespace {

constexpr int kColumns = 16;  // 6 rows by two registers: 12 of 16 registers accumulate

__attribute__((noinline)) void product_columns(const float* centers, const char* row,
                                               int64_t stride, int64_t words, bool accumulate,
                                               float* to) {
  __m256 sum[kTileRows][2];
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_ps();
  for (int64_t w = 0; w < words; ++w, row += kWordBytes, centers += kPanelWidth) {
    const __m256 c0 = _mm256_loadu_ps(centers);
    const __m256 c1 = _mm256_loadu_ps(centers + 8);
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

void product(const void* panel, const void* rows, int64_t stride, int64_t words, bool accumulate,
             void* out) {
  for (int c = 0; c < kPanelWidth; c += kColumns) {
    product_columns(static_cast<const float*>(panel) + c, static_cast<const char*>(rows), stride,
                    words, accumulate, static_cast<float*>(out) + c);
  }
}

bool select(const ScreenTile& tile, uint64_t* masks) {
  const float* products = static_cast<const float*>(tile.products);
  uint64_t any = 0;
  for (int r = 0; r < kTileRows; ++r, products += kPanelWidth) {
    const __m256 inverse = _mm256_set1_ps(tile.row_inverse[r]);
    const __m256 row_tail = _mm256_set1_ps(tile.row_tail[r]);
    const __m256 limit = _mm256_set1_ps(tile.row_limit[r]);
    uint64_t mask = 0;
    for (int c = 0; c < kPanelWidth; c += 8) {
      __m256 value = _mm256_loadu_ps(products + c);
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

AssignKernels assign_kernels_avx2() {
  AssignKernels kernels = assign_kernels_scalar(CodeType::float32);
  set_row_kernels_avx2(kernels);
  kernels.dot = dot;
  kernels.product = product;
  kernels.select = select;
  return kernels;
}

}  // namespace ktfast::cpu
