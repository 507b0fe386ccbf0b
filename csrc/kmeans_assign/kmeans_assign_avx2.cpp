// Product and screen of kmeans_assign with AVX2 and FMA.
#include <immintrin.h>

#include "kmeans_assign/score_tile.h"

namespace ktfast::cpu {
namespace {

constexpr int kRows = 6;  // 6 rows by two registers: 12 of 16 registers accumulate

__attribute__((noinline)) void quarter_avx2(const float* __restrict__ panel,
                                            const float* __restrict__ rows, int64_t length,
                                            bool accumulate, float* __restrict__ out) {
  __m256 sum[kRows][2];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_ps();
  for (int64_t p = 0; p < length; ++p) {
    const __m256 c0 = _mm256_loadu_ps(panel);
    const __m256 c1 = _mm256_loadu_ps(panel + 8);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const __m256 x = _mm256_broadcast_ss(rows + r);
      sum[r][0] = _mm256_fmadd_ps(x, c0, sum[r][0]);
      sum[r][1] = _mm256_fmadd_ps(x, c1, sum[r][1]);
    }
    panel += kPanelWidth;
    rows += kTileRows;
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    float* to = out + r * kPanelWidth;
    if (accumulate) {
      sum[r][0] = _mm256_add_ps(_mm256_loadu_ps(to), sum[r][0]);
      sum[r][1] = _mm256_add_ps(_mm256_loadu_ps(to + 8), sum[r][1]);
    }
    _mm256_storeu_ps(to, sum[r][0]);
    _mm256_storeu_ps(to + 8, sum[r][1]);
  }
}

void product_avx2(const float* panel, const float* rows, int64_t length, bool accumulate,
                  float* out) {
  for (int c = 0; c < kPanelWidth; c += 16) {
    for (int r = 0; r < kTileRows; r += kRows) {
      quarter_avx2(panel + c, rows + r, length, accumulate, out + r * kPanelWidth + c);
    }
  }
}

void screen_avx2(const float* products, const float* half_norms, int32_t panel,
                 ScreenState* states) {
  const __m256i slot0 = _mm256_set1_epi32(2 * panel);
  const __m256i slot1 = _mm256_set1_epi32(2 * panel + 1);
  for (int r = 0; r < kTileRows; ++r) {
    ScreenState& state = states[r];
    for (int c = 0; c < kClasses; c += 8) {
      const float* product = products + r * kPanelWidth + c;
      const __m256 s0 = _mm256_sub_ps(_mm256_loadu_ps(half_norms + c), _mm256_loadu_ps(product));
      const __m256 s1 =
          _mm256_sub_ps(_mm256_loadu_ps(half_norms + 16 + c), _mm256_loadu_ps(product + 16));
      const __m256 low = _mm256_min_ps(s0, s1);
      const __m256 high = _mm256_max_ps(s0, s1);
      const __m256i low_slot =
          _mm256_blendv_epi8(slot0, slot1, _mm256_castps_si256(_mm256_cmp_ps(s1, s0, _CMP_LT_OQ)));
      const __m256 least = _mm256_loadu_ps(state.least + c);
      const __m256 second = _mm256_loadu_ps(state.second + c);
      const __m256i better = _mm256_castps_si256(_mm256_cmp_ps(low, least, _CMP_LT_OQ));
      auto* slot = reinterpret_cast<__m256i*>(state.slot + c);
      _mm256_storeu_si256(slot, _mm256_blendv_epi8(_mm256_loadu_si256(slot), low_slot, better));
      _mm256_storeu_ps(state.second + c,
                       _mm256_min_ps(_mm256_min_ps(second, high), _mm256_max_ps(least, low)));
      _mm256_storeu_ps(state.least + c, _mm256_min_ps(least, low));
    }
  }
}

}  // namespace

ScoreKernels score_kernels_avx2() { return {product_avx2, screen_avx2}; }

}  // namespace ktfast::cpu
