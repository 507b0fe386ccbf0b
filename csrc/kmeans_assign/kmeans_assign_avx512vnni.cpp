// Product of int8 codes with AVX-512 VNNI.
#include <immintrin.h>

#include "kmeans_assign/assign_kernels.h"

namespace ktfast::cpu {
namespace {

__m512i multiply(__m512i sum, __m512i x, __m512i c) { return _mm512_dpbusd_epi32(sum, c, x); }

// Out of line, or GCC 12 spills the accumulators when it is inlined into its caller.
__attribute__((noinline)) void product(const void* panel, const void* rows, int64_t stride,
                                       int64_t words, bool accumulate, void* out) {
  const char* centers = static_cast<const char*>(panel);
  const char* row = static_cast<const char*>(rows);
  __m512i sum[kTileRows][4];
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sum[r][i] = _mm512_setzero_si512();
  }
  for (int64_t w = 0; w < words; ++w, row += kWordBytes, centers += kPanelWidth * kWordBytes) {
    const __m512i c0 = _mm512_loadu_si512(centers), c1 = _mm512_loadu_si512(centers + 64);
    const __m512i c2 = _mm512_loadu_si512(centers + 128), c3 = _mm512_loadu_si512(centers + 192);
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      const __m512i x = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(row + r * stride));
      sum[r][0] = multiply(sum[r][0], x, c0);
      sum[r][1] = multiply(sum[r][1], x, c1);
      sum[r][2] = multiply(sum[r][2], x, c2);
      sum[r][3] = multiply(sum[r][3], x, c3);
    }
  }
  int32_t* to = static_cast<int32_t*>(out);
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i, to += 16) {
      _mm512_storeu_si512(
          to, accumulate ? _mm512_add_epi32(_mm512_loadu_si512(to), sum[r][i]) : sum[r][i]);
    }
  }
}

}  // namespace

Product product_avx512_vnni() { return product; }

}  // namespace ktfast::cpu
