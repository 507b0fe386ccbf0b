// The product of codes with AVX-512. One loop serves every code; the file of each instruction set
// extension instantiates the loop.
#pragma once

#include <immintrin.h>

#include "kmeans_assign/cpu/kernels.h"

namespace ktfast::cpu {
namespace {  // unnamed, because each including file is built with its own flags

inline __m512 zero(__m512) { return _mm512_setzero_ps(); }
inline __m512i zero(__m512i) { return _mm512_setzero_si512(); }
// Stores 16 products, or adds them to the stored sums.
inline void put(float* to, __m512 sum, bool accumulate) {
  _mm512_storeu_ps(to, accumulate ? _mm512_add_ps(_mm512_loadu_ps(to), sum) : sum);
}
inline void put(int32_t* to, __m512i sum, bool accumulate) {
  _mm512_storeu_si512(to, accumulate ? _mm512_add_epi32(_mm512_loadu_si512(to), sum) : sum);
}

// For every eight words that it multiplies, the product fetches two cache lines of the next range
// and one line of other memory.
constexpr int kFetchWords = 8;

// Codes::multiply(sum, x, c) adds the products of 16 words to 16 sums of type Codes::Product. The
// function is not inlined, because GCC 12 spills the sums when it inlines the function.
template <class Codes, int kCount>
__attribute__((noinline)) void product_tile(const char* centers, int64_t column_bytes,
                                            const char* row, int64_t stride, int64_t words,
                                            bool accumulate, typename Codes::Product* to,
                                            const char* next, const char* soon) {
  using Sum = typename Codes::Sum;
  Sum sum[kTileRows][kCount];
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) sum[r][i] = zero(Sum{});
  }
  const auto multiply_word = [&]() {
    __m512i c[kCount];
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) c[i] = _mm512_loadu_si512(centers + i * column_bytes);
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      const __m512i x = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(row + r * stride));
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i) sum[r][i] = Codes::multiply(sum[r][i], x, c[i]);
    }
    row += kWordBytes;
    centers += kColumnBytes;
  };
  int64_t w = 0;
  for (; w + kFetchWords <= words; w += kFetchWords, next += 2 * kLineBytes, soon += kLineBytes) {
    _mm_prefetch(next, _MM_HINT_T1);
    _mm_prefetch(next + kLineBytes, _MM_HINT_T1);
    _mm_prefetch(soon, _MM_HINT_T1);
#pragma GCC unroll 8
    for (int i = 0; i < kFetchWords; ++i) multiply_word();
  }
  for (; w < words; ++w) multiply_word();
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r, to += kPanelWidth) {
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) put(to + i * kColumnWidth, sum[r][i], accumulate);
  }
}

// The 16 tiles of a whole block together fetch the whole next range, a quarter of a column each.
template <class Codes, int kCount>
void product_columns(const PanelProduct& p) {
  auto* to = static_cast<typename Codes::Product*>(p.out);
  const int64_t quarter = p.words / kFetchWords * 2 * kLineBytes;
  for (int64_t tile = 0; tile < p.n_tiles; ++tile, to += kTileRows * kPanelWidth) {
    const char* next = p.next_column(static_cast<int>(tile % kColumns)) + tile / kColumns * quarter;
    product_tile<Codes, kCount>(p.column(0), p.column_bytes(), p.row(tile), p.stride, p.words,
                                p.accumulate, to, next, p.soon_of(tile));
  }
}

template <class Codes>
void product_avx512(const PanelProduct& p) {
  static_assert(kColumns == 4, "a function for each number of columns");
  switch (p.columns) {
    case 1:
      return product_columns<Codes, 1>(p);
    case 2:
      return product_columns<Codes, 2>(p);
    case 3:
      return product_columns<Codes, 3>(p);
    default:
      return product_columns<Codes, 4>(p);
  }
}

}  // namespace
}  // namespace ktfast::cpu
