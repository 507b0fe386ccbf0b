// Product of float32 codes, selection and single scores with AVX2 and FMA.
#include "kmeans_assign/cpu/kernels.h"

#include <immintrin.h>

namespace ktfast::cpu {
namespace {

// For every 16 words that it multiplies, the product fetches one cache line of the next column and
// one line of other memory. The loop is unrolled by four words. Without unrolling, the loop counter
// competes with the multiplications for execution ports; unrolled by all 16 words, the loop is slow
// again. Both are 3 to 5 % slower on a Xeon.
constexpr int kFetchWords = 16;

// Multiplies six rows by one column of 16 centres, with 12 of 16 registers for the sums. The
// function is not inlined, because GCC 12 spills the sums when it inlines the function.
__attribute__((noinline)) void product_column(const char* centers, const char* row, int64_t stride,
                                              int64_t words, bool accumulate, float* to,
                                              const char* next, const char* soon) {
  __m256 sum[kTileRows][2];
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_ps();
  const auto multiply_word = [&]() {
    const __m256 c0 = _mm256_loadu_ps(reinterpret_cast<const float*>(centers));
    const __m256 c1 = _mm256_loadu_ps(reinterpret_cast<const float*>(centers) + 8);
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      const __m256 x = _mm256_broadcast_ss(reinterpret_cast<const float*>(row + r * stride));
      sum[r][0] = _mm256_fmadd_ps(x, c0, sum[r][0]);
      sum[r][1] = _mm256_fmadd_ps(x, c1, sum[r][1]);
    }
    row += kWordBytes;
    centers += kColumnBytes;
  };
  int64_t w = 0;
  for (; w + kFetchWords <= words; w += kFetchWords, next += kLineBytes, soon += kLineBytes) {
    _mm_prefetch(next, _MM_HINT_T0);
    _mm_prefetch(soon, _MM_HINT_T1);
#pragma GCC unroll 4
    for (int i = 0; i < kFetchWords; ++i) multiply_word();
  }
  for (; w < words; ++w) multiply_word();
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

// Multiplies a column, which fits a first-level cache, by all rows before the next column. The 16
// tiles of a whole block together fetch the whole next column. The first two columns fetch the
// other memory (PanelProduct::soon).
void product(const PanelProduct& p) {
  const int64_t part = p.words / kFetchWords * kLineBytes;
  for (int column = 0; column < p.columns; ++column) {
    const char* next = column + 1 < p.columns ? p.column(column + 1) : p.next_column(0);
    for (int64_t tile = 0; tile < p.n_tiles; ++tile, next += part) {
      product_column(
          p.column(column), p.row(tile), p.stride, p.words, p.accumulate,
          static_cast<float*>(p.out) + tile * kTileRows * kPanelWidth + column * kColumnWidth, next,
          column < 2 ? p.soon_of(tile) + column * part : p.row(tile));
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

float sum_of(__m256 lanes) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// Where the numbers from p on are among the eight that a register takes.
__m256i first(int64_t left) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(left < 8 ? static_cast<int32_t>(left) : 8), lane);
}

float dot(const float* a, const float* b, int64_t length) {
  __m256 sums[4];
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  int64_t p = 0;
  for (; p + 32 <= length; p += 32) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      sums[i] =
          _mm256_fmadd_ps(_mm256_loadu_ps(a + p + 8 * i), _mm256_loadu_ps(b + p + 8 * i), sums[i]);
    }
  }
  for (int i = 0; p < length; p += 8, ++i) {
    const __m256i mask = first(length - p);
    sums[i] =
        _mm256_fmadd_ps(_mm256_maskload_ps(a + p, mask), _mm256_maskload_ps(b + p, mask), sums[i]);
  }
  return sum_of(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3])));
}

void dots(const float* x, const float* const* vectors, int64_t length, float* products) {
  __m256 sums[kDots][2];
#pragma GCC unroll 4
  for (int i = 0; i < kDots; ++i) sums[i][0] = sums[i][1] = _mm256_setzero_ps();
  int64_t p = 0;
  for (; p + 16 <= length; p += 16) {
    const __m256 low = _mm256_loadu_ps(x + p), high = _mm256_loadu_ps(x + p + 8);
#pragma GCC unroll 4
    for (int i = 0; i < kDots; ++i) {
      sums[i][0] = _mm256_fmadd_ps(low, _mm256_loadu_ps(vectors[i] + p), sums[i][0]);
      sums[i][1] = _mm256_fmadd_ps(high, _mm256_loadu_ps(vectors[i] + p + 8), sums[i][1]);
    }
  }
  for (int half = 0; p < length; p += 8, ++half) {
    const __m256i mask = first(length - p);
    const __m256 value = _mm256_maskload_ps(x + p, mask);
#pragma GCC unroll 4
    for (int i = 0; i < kDots; ++i) {
      sums[i][half] =
          _mm256_fmadd_ps(value, _mm256_maskload_ps(vectors[i] + p, mask), sums[i][half]);
    }
  }
  for (int i = 0; i < kDots; ++i) products[i] = sum_of(_mm256_add_ps(sums[i][0], sums[i][1]));
}

}  // namespace

AssignKernels assign_kernels_avx2(CodeType code) {
  AssignKernels kernels = assign_kernels_scalar(code);
  set_row_kernels_avx2(kernels);
  kernels.dot = dot;
  kernels.dots = dots;
  kernels.select = code == CodeType::int8 ? select<true> : select<false>;
  if (code == CodeType::float32) kernels.product = product;
  if (code == CodeType::int8) set_int8_kernels_avx2(kernels);
  return kernels;
}

}  // namespace ktfast::cpu
