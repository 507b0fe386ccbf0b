// Products of codes with AVX-512: one loop for every code, included by one file per extension.
#pragma once

#include <immintrin.h>

#include "kmeans_assign/assign_kernels.h"

namespace ktfast::cpu {
namespace {  // each including file is built for its own instructions

inline __m512 zero(__m512) { return _mm512_setzero_ps(); }
inline __m512i zero(__m512i) { return _mm512_setzero_si512(); }
// A tile's 16 products, added to what is there or not.
inline void put(float* to, __m512 sum, bool accumulate) {
  _mm512_storeu_ps(to, accumulate ? _mm512_add_ps(_mm512_loadu_ps(to), sum) : sum);
}
inline void put(int32_t* to, __m512i sum, bool accumulate) {
  _mm512_storeu_si512(to, accumulate ? _mm512_add_epi32(_mm512_loadu_si512(to), sum) : sum);
}

// Codes::multiply(sum, x, c) adds the products of 16 words to 16 sums of type Codes::Product. Out
// of line, or GCC 12 spills the accumulators when it is inlined into its caller.
template <class Codes>
__attribute__((noinline)) void product_tile(const char* centers, int64_t column_bytes,
                                            const char* row, int64_t stride, int64_t words,
                                            bool accumulate, typename Codes::Product* to) {
  using Sum = typename Codes::Sum;
  Sum sum[kTileRows][kColumns];
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kColumns; ++i) sum[r][i] = zero(Sum{});
  }
#pragma GCC unroll 4
  for (int64_t w = 0; w < words; ++w, row += kWordBytes, centers += kColumnWidth * kWordBytes) {
    const __m512i c0 = _mm512_loadu_si512(centers);
    const __m512i c1 = _mm512_loadu_si512(centers + column_bytes);
    const __m512i c2 = _mm512_loadu_si512(centers + 2 * column_bytes);
    const __m512i c3 = _mm512_loadu_si512(centers + 3 * column_bytes);
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      const __m512i x = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(row + r * stride));
      sum[r][0] = Codes::multiply(sum[r][0], x, c0);
      sum[r][1] = Codes::multiply(sum[r][1], x, c1);
      sum[r][2] = Codes::multiply(sum[r][2], x, c2);
      sum[r][3] = Codes::multiply(sum[r][3], x, c3);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kColumns; ++i, to += kColumnWidth) put(to, sum[r][i], accumulate);
  }
}

template <class Codes>
void product_avx512(const PanelProduct& p) {
  auto* to = static_cast<typename Codes::Product*>(p.out);
  const int64_t column_bytes = p.panel_words * kColumnWidth * kWordBytes;
  for (int64_t tile = 0; tile < p.n_tiles; ++tile, to += kTileRows * kPanelWidth) {
    product_tile<Codes>(p.column(0), column_bytes, p.row(tile), p.stride, p.words, p.accumulate,
                        to);
  }
}

}  // namespace
}  // namespace ktfast::cpu
