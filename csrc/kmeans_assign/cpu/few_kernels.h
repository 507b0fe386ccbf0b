// The inner loops of kmeans_few: a block of rows by a few centres, with rows as SIMD lanes.
#pragma once

#include <cstdint>

#include "kmeans_assign/cpu/kernels.h"

namespace ktfast::cpu {

// As many rows as a panel has centres: the product takes a block of rows for its panel, and tiles
// of centres for its rows.
constexpr int kFewRows = kPanelWidth;

// Scores of the nearest and the second nearest centre so far, and which the nearest is.
struct Ranking {
  float best[kFewRows];
  float second[kFewRows];
  int32_t nearest[kFewRows];
};

struct FewKernels {
  // Rows less the mean, as AssignKernels::shift has it, as a panel; zeros behind the last row.
  // Returns the largest sum of squares of a row, added up one feature after another; what is not a
  // number may be left out. The length is at most kChainLength.
  float (*load)(const void* x, ElementType type,
                int64_t stride,  // elements from row to row
                int64_t rows, const float* mean, int64_t length,
                float* panel);  // [kColumns, length, kColumnWidth]
  // Ranks `count` more centres, from number `first` on, by halves - products. A score that is not
  // a number makes the second as good as the best, or leaves both infinite.
  void (*rank)(const float* products,  // [count, kFewRows]
               const float* halves,    // [count]
               int32_t first, int count, Ranking& ranking);
  // out[r] = the exact distance of row r to centre labels[r].
  void (*exact)(const void* x, ElementType type, const double* centers, const int32_t* labels,
                int64_t rows, int64_t length, double* out);
};

// The fastest for this machine, within KTFAST_SIMD.
FewKernels few_kernels();

FewKernels few_kernels_scalar();
FewKernels few_kernels_avx2();

}  // namespace ktfast::cpu
