// Product and screen of kmeans_assign with AVX-512.
#include <immintrin.h>

#include "kmeans_assign/score_tile.h"

namespace ktfast::cpu {
namespace {

// Out of line, or GCC 12 spills the accumulators when it is inlined into its caller.
__attribute__((noinline)) void product_avx512(const float* __restrict__ panel,
                                              const float* __restrict__ rows, int64_t length,
                                              bool accumulate, float* __restrict__ out) {
  __m512 sum[kTileRows][2];
#pragma GCC unroll 12
  for (int r = 0; r < kTileRows; ++r) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
  for (int64_t p = 0; p < length; ++p) {
    const __m512 c0 = _mm512_loadu_ps(panel);
    const __m512 c1 = _mm512_loadu_ps(panel + 16);
#pragma GCC unroll 12
    for (int r = 0; r < kTileRows; ++r) {
      const __m512 x = _mm512_set1_ps(rows[r]);
      sum[r][0] = _mm512_fmadd_ps(x, c0, sum[r][0]);
      sum[r][1] = _mm512_fmadd_ps(x, c1, sum[r][1]);
    }
    panel += kPanelWidth;
    rows += kTileRows;
  }
#pragma GCC unroll 12
  for (int r = 0; r < kTileRows; ++r) {
    float* to = out + r * kPanelWidth;
    if (accumulate) {
      sum[r][0] = _mm512_add_ps(_mm512_loadu_ps(to), sum[r][0]);
      sum[r][1] = _mm512_add_ps(_mm512_loadu_ps(to + 16), sum[r][1]);
    }
    _mm512_storeu_ps(to, sum[r][0]);
    _mm512_storeu_ps(to + 16, sum[r][1]);
  }
}

void screen_avx512(const float* products, const float* half_norms, int32_t panel,
                   ScreenState* states) {
  const __m512 h0 = _mm512_loadu_ps(half_norms);
  const __m512 h1 = _mm512_loadu_ps(half_norms + 16);
  const __m512i slot0 = _mm512_set1_epi32(2 * panel);
  const __m512i slot1 = _mm512_set1_epi32(2 * panel + 1);
  for (int r = 0; r < kTileRows; ++r) {
    ScreenState& state = states[r];
    const __m512 s0 = _mm512_sub_ps(h0, _mm512_loadu_ps(products + r * kPanelWidth));
    const __m512 s1 = _mm512_sub_ps(h1, _mm512_loadu_ps(products + r * kPanelWidth + 16));
    const __m512 low = _mm512_min_ps(s0, s1);
    const __m512 high = _mm512_max_ps(s0, s1);
    const __m512i low_slot =
        _mm512_mask_mov_epi32(slot0, _mm512_cmp_ps_mask(s1, s0, _CMP_LT_OQ), slot1);
    const __m512 least = _mm512_loadu_ps(state.least);
    const __m512 second = _mm512_loadu_ps(state.second);
    const __mmask16 better = _mm512_cmp_ps_mask(low, least, _CMP_LT_OQ);
    _mm512_mask_storeu_epi32(state.slot, better, low_slot);
    _mm512_storeu_ps(state.second,
                     _mm512_min_ps(_mm512_min_ps(second, high), _mm512_max_ps(least, low)));
    _mm512_storeu_ps(state.least, _mm512_min_ps(least, low));
  }
}

}  // namespace

ScoreKernels score_kernels_avx512() { return {product_avx512, screen_avx512}; }

}  // namespace ktfast::cpu
