// The inner loops of the CPU's kmeans_assign, one table per instruction set.
//
// A code is a string of 4-byte words: one float32, two bfloat16 or four int8 numbers each. A panel
// holds the codes of 64 centres word by word, panel[word, centre]; a tile is six rows by a panel.
#pragma once

#include <cstdint>

#include "common/element.h"
#include "kmeans_assign/kmeans_assign.h"

namespace ktfast::cpu {

// Six rows by four AVX-512 registers fill 24 of 32 accumulators.
constexpr int kTileRows = 6;
constexpr int kPanelWidth = 64;
constexpr int kWordBytes = 4;

struct Encoded {
  float scale;            // numbers are approximated by scale times codes
  float residual_square;  // of what is left
  int32_t sum;            // of int8 codes
};

struct Magnitude {
  float square;  // sum of squares
  float largest;
};

// Products of a tile, and what makes scores of them.
struct ScreenTile {
  const void* products;      // [kTileRows, kPanelWidth] int32 or float
  const float* half_norms;   // [kPanelWidth]
  const float* tails;        // [kPanelWidth], or nullptr: all 0
  const float* row_inverse;  // [kTileRows], 1 / (row scale x panel scale)
  const float* row_tail;     // [kTileRows], tail x row_inverse
  const float* row_limit;    // [kTileRows]
};

using Product = void (*)(const void* panel,  // [words, kPanelWidth] words
                         const void* rows,   // kTileRows codes, `stride` bytes apart
                         int64_t stride, int64_t words, bool accumulate,
                         void* out);  // [kTileRows, kPanelWidth] int32 or float

struct AssignKernels {
  // shifted[p] = x[p] - mean[p].
  void (*shift)(const void* x, ElementType type, const float* mean, int64_t length, float* shifted);
  Magnitude (*magnitude)(const float* values, int64_t length);
  // Sums over kDotLanes chains.
  float (*dot)(const float* a, const float* b, int64_t length);
  // The exact distance of assign_math.h.
  double (*squared_distance)(const void* x, ElementType type, const double* c, int64_t length);
  Encoded (*encode)(const float* values, int64_t length, float largest, CodeType code, void* codes);
  // Offset by 128, the codes of int8 panels are unsigned.
  Product product;
  // Bit c of masks[r] is set unless centre c is certainly beyond the row's limit:
  //   product + row_tail * tail - row_inverse * half_norm < row_limit.
  // Returns whether any bit is set.
  bool (*select)(const ScreenTile& tile, uint64_t* masks);  // [kTileRows]
};

// The fastest for this machine, within KTFAST_SIMD.
AssignKernels assign_kernels(CodeType code);

AssignKernels assign_kernels_scalar(CodeType code);
AssignKernels assign_kernels_avx2();                 // float32
void set_row_kernels_avx2(AssignKernels& kernels);   // all but products, dot and select
AssignKernels assign_kernels_avx512(CodeType code);  // with the product of float32
Product product_avx512_vnni();
Product product_avx512_bf16();

}  // namespace ktfast::cpu
