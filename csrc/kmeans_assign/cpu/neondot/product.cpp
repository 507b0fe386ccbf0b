// The product of int8 codes with NEON's dot product, an extension of ARMv8.2.
//
// The instruction multiplies signed bytes, but a panel holds each code of a centre plus 128, as an
// unsigned byte. So the loop subtracts 128 from each code, and adds 128 times the sum of the row's
// codes to the product at the end. All numbers are integers, so the result is exact.
#include <arm_neon.h>

#include "kmeans_assign/cpu/kernels.h"

namespace ktfast::cpu {
namespace {

constexpr int kOffset = 128;
constexpr int kLanes = 4;  // words in a register

int8x16_t signed_bytes(const char* from) {
  const uint8x16_t stored = vld1q_u8(reinterpret_cast<const uint8_t*>(from));
  return vreinterpretq_s8_u8(veorq_u8(stored, vdupq_n_u8(kOffset)));
}

// Multiplies six rows by eight centres, with 18 of 32 registers for the sums. Four words of the
// centres stay in eight registers while they are multiplied by each row.
__attribute__((noinline)) void product_half_column(const char* centers, const char* row,
                                                   int64_t stride, int64_t words, bool accumulate,
                                                   int32_t* to) {
  const int8x16_t ones = vdupq_n_s8(1);
  int32x4_t sum[kTileRows][2], row_sum[kTileRows];
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r) sum[r][0] = sum[r][1] = row_sum[r] = vdupq_n_s32(0);
  for (int64_t w = 0; w < words; w += kLanes) {
    int8x16_t c[kLanes][2];
#pragma GCC unroll 4
    for (int i = 0; i < kLanes; ++i) {
      c[i][0] = signed_bytes(centers + i * kColumnBytes);
      c[i][1] = signed_bytes(centers + i * kColumnBytes + kLanes * kWordBytes);
    }
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      const int8x16_t x = vld1q_s8(reinterpret_cast<const int8_t*>(row + r * stride));
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        sum[r][half] = vdotq_laneq_s32(sum[r][half], c[0][half], x, 0);
        sum[r][half] = vdotq_laneq_s32(sum[r][half], c[1][half], x, 1);
        sum[r][half] = vdotq_laneq_s32(sum[r][half], c[2][half], x, 2);
        sum[r][half] = vdotq_laneq_s32(sum[r][half], c[3][half], x, 3);
      }
      row_sum[r] = vdotq_s32(row_sum[r], x, ones);
    }
    row += kLanes * kWordBytes;
    centers += kLanes * kColumnBytes;
  }
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r, to += kPanelWidth) {
    const int32x4_t offset = vdupq_n_s32(kOffset * vaddvq_s32(row_sum[r]));
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      int32x4_t total = vaddq_s32(sum[r][half], offset);
      if (accumulate) total = vaddq_s32(vld1q_s32(to + kLanes * half), total);
      vst1q_s32(to + kLanes * half, total);
    }
  }
}

// Multiplies a column, which fits a first-level cache, by all rows before the next column.
void product(const PanelProduct& p) {
  static_assert(kInt8Words % kLanes == 0, "a step takes four words");
  for (int column = 0; column < p.columns; ++column) {
    auto* to = static_cast<int32_t*>(p.out) + column * kColumnWidth;
    for (int64_t tile = 0; tile < p.n_tiles; ++tile, to += kTileRows * kPanelWidth) {
      for (int half = 0; half < 2; ++half) {
        product_half_column(p.column(column) + half * 2 * kLanes * kWordBytes, p.row(tile),
                            p.stride, p.words, p.accumulate, to + half * 2 * kLanes);
      }
    }
  }
}

}  // namespace

Product product_neon_dot() { return product; }

}  // namespace ktfast::cpu
