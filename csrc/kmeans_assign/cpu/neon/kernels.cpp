// NEON versions of three loops: the product of float32 codes, the selection of candidates, and
// single scores. Every aarch64 processor has NEON. The other loops are those of
// scalar/kernels.cpp, which the compiler vectorises for NEON by itself.
#include "kmeans_assign/cpu/kernels.h"

#include <arm_neon.h>

namespace ktfast::cpu {
namespace {

constexpr int kLanes = 4;

const float* floats(const char* place) { return reinterpret_cast<const float*>(place); }

// Multiplies six rows by eight centres, with 12 of 32 registers for the sums. Four words of the
// centres stay in eight registers while they are multiplied by each row.
__attribute__((noinline)) void product_half_column(const char* centers, const char* row,
                                                   int64_t stride, int64_t words, bool accumulate,
                                                   float* to) {
  float32x4_t sum[kTileRows][2];
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r) sum[r][0] = sum[r][1] = vdupq_n_f32(0);
  int64_t w = 0;
  for (; w + kLanes <= words; w += kLanes) {
    float32x4_t c[kLanes][2];
#pragma GCC unroll 4
    for (int i = 0; i < kLanes; ++i) {
      c[i][0] = vld1q_f32(floats(centers + i * kColumnBytes));
      c[i][1] = vld1q_f32(floats(centers + i * kColumnBytes) + kLanes);
    }
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      const float32x4_t x = vld1q_f32(floats(row + r * stride));
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        sum[r][half] = vfmaq_laneq_f32(sum[r][half], c[0][half], x, 0);
        sum[r][half] = vfmaq_laneq_f32(sum[r][half], c[1][half], x, 1);
        sum[r][half] = vfmaq_laneq_f32(sum[r][half], c[2][half], x, 2);
        sum[r][half] = vfmaq_laneq_f32(sum[r][half], c[3][half], x, 3);
      }
    }
    row += kLanes * kWordBytes;
    centers += kLanes * kColumnBytes;
  }
  for (; w < words; ++w, row += kWordBytes, centers += kColumnBytes) {
    const float32x4_t c0 = vld1q_f32(floats(centers)), c1 = vld1q_f32(floats(centers) + kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      const float32x4_t x = vdupq_n_f32(*floats(row + r * stride));
      sum[r][0] = vfmaq_f32(sum[r][0], x, c0);
      sum[r][1] = vfmaq_f32(sum[r][1], x, c1);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r, to += kPanelWidth) {
    if (accumulate) {
      sum[r][0] = vaddq_f32(vld1q_f32(to), sum[r][0]);
      sum[r][1] = vaddq_f32(vld1q_f32(to + kLanes), sum[r][1]);
    }
    vst1q_f32(to, sum[r][0]);
    vst1q_f32(to + kLanes, sum[r][1]);
  }
}

// Multiplies a column, which fits a first-level cache, by all rows before the next column.
void product(const PanelProduct& p) {
  for (int column = 0; column < p.columns; ++column) {
    auto* to = static_cast<float*>(p.out) + column * kColumnWidth;
    for (int64_t tile = 0; tile < p.n_tiles; ++tile, to += kTileRows * kPanelWidth) {
      for (int half = 0; half < 2; ++half) {
        product_half_column(p.column(column) + half * 2 * kLanes * kWordBytes, p.row(tile),
                            p.stride, p.words, p.accumulate, to + half * 2 * kLanes);
      }
    }
  }
}

template <bool kInt>
float32x4_t score_part(const void* products, int index) {
  if constexpr (kInt) {
    return vcvtq_f32_s32(vld1q_s32(static_cast<const int32_t*>(products) + index));
  } else {
    return vld1q_f32(static_cast<const float*>(products) + index);
  }
}

template <bool kInt>
bool select(const ScreenTile& tile, uint64_t* masks) {
  constexpr uint32_t kLaneBits[kLanes] = {1, 2, 4, 8};
  const uint32x4_t bits = vld1q_u32(kLaneBits);
  uint64_t any = 0;
  for (int r = 0; r < kTileRows; ++r) {
    const float32x4_t inverse = vdupq_n_f32(tile.row_inverse[r]);
    const float32x4_t row_tail = vdupq_n_f32(tile.row_tail[r]);
    const float32x4_t limit = vdupq_n_f32(tile.row_limit[r]);
    uint64_t mask = 0;
    for (int c = 0; c < kPanelWidth; c += kLanes) {
      float32x4_t value = score_part<kInt>(tile.products, r * kPanelWidth + c);
      if (tile.tails != nullptr) value = vfmaq_f32(value, row_tail, vld1q_f32(tile.tails + c));
      value = vfmsq_f32(value, inverse, vld1q_f32(tile.half_norms + c));
      // The comparison is negated so that NaN sets the bit.
      const uint32x4_t reached = vbicq_u32(bits, vcltq_f32(value, limit));
      mask |= static_cast<uint64_t>(vaddvq_u32(reached)) << c;
    }
    masks[r] = mask;
    any |= mask;
  }
  return any != 0;
}

// Loads the first `count` numbers of four, followed by zeros.
float32x4_t load_first(const float* from, int64_t count) {
  if (count >= kLanes) return vld1q_f32(from);
  float padded[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = from[i];
  return vld1q_f32(padded);
}

// The sum of the 16 lanes of four registers.
float sum_of(const float32x4_t (&sums)[4]) {
  return vaddvq_f32(vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3])));
}

void dots(const float* x, const float* const* vectors, int64_t length, float* products) {
  static_assert(kDots == 4, "16 of 32 registers hold sums");
  float32x4_t sums[kDots][4];
#pragma GCC unroll 4
  for (int v = 0; v < kDots; ++v) {
    sums[v][0] = sums[v][1] = sums[v][2] = sums[v][3] = vdupq_n_f32(0);
  }
  int64_t p = 0;
  for (; p + 4 * kLanes <= length; p += 4 * kLanes) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const float32x4_t value = vld1q_f32(x + p + kLanes * i);
#pragma GCC unroll 4
      for (int v = 0; v < kDots; ++v) {
        sums[v][i] = vfmaq_f32(sums[v][i], value, vld1q_f32(vectors[v] + p + kLanes * i));
      }
    }
  }
  for (int i = 0; p < length; p += kLanes, ++i) {
    const float32x4_t value = load_first(x + p, length - p);
    for (int v = 0; v < kDots; ++v) {
      sums[v][i] = vfmaq_f32(sums[v][i], value, load_first(vectors[v] + p, length - p));
    }
  }
  for (int v = 0; v < kDots; ++v) products[v] = sum_of(sums[v]);
}

float dot(const float* a, const float* b, int64_t length) {
  float32x4_t sums[4];
  for (float32x4_t& sum : sums) sum = vdupq_n_f32(0);
  int64_t p = 0;
  for (; p + 4 * kLanes <= length; p += 4 * kLanes) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      sums[i] = vfmaq_f32(sums[i], vld1q_f32(a + p + kLanes * i), vld1q_f32(b + p + kLanes * i));
    }
  }
  for (int i = 0; p < length; p += kLanes, ++i) {
    sums[i] = vfmaq_f32(sums[i], load_first(a + p, length - p), load_first(b + p, length - p));
  }
  return sum_of(sums);
}

}  // namespace

AssignKernels assign_kernels_neon(CodeType code) {
  AssignKernels kernels = assign_kernels_scalar(code);
  kernels.dot = dot;
  kernels.dots = dots;
  kernels.select = code == CodeType::int8 ? select<true> : select<false>;
  if (code == CodeType::float32) kernels.product = product;
  return kernels;
}

}  // namespace ktfast::cpu
