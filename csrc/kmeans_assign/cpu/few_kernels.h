// The inner loops of kmeans_few. A block of rows is compared with few centres, one row per SIMD
// lane.
#pragma once

#include <cstdint>

#include "kmeans_assign/cpu/kernels.h"

namespace ktfast::cpu {

// A block has as many rows as a panel has centres, because the product of AssignKernels takes the
// rows as its panel and the centres as its rows.
constexpr int kFewRows = kPanelWidth;

// For each row: the least and the second least score so far, and the centre of the least.
struct Ranking {
  float best[kFewRows];
  float second[kFewRows];
  int32_t nearest[kFewRows];
};

struct FewKernels {
  // Writes the rows less the mean as a panel, with zeros for missing rows. The differences have the
  // bits of AssignKernels::shift. Returns the largest sum of squares of any row. A row's squares
  // are added in the order of the features. Sums that are NaN may be ignored. The length is at most
  // kChainLength.
  float (*load)(const void* x, ElementType type,
                int64_t stride,  // elements from row to row
                int64_t rows, const float* mean, int64_t length,
                float* panel);  // [kColumns, length, kColumnWidth]
  // Ranks `count` more centres, from number `first` on, by halves - products. A score of NaN makes
  // the second score equal to the best, or leaves both infinite, so that the row counts as
  // undecided.
  void (*rank)(const float* products,  // [count, kFewRows]
               const float* halves,    // [count]
               int32_t first, int count, Ranking& ranking);
  // Sets out[r] to the exact distance of row r to centre labels[r].
  void (*exact)(const void* x, ElementType type, const double* centers, const int32_t* labels,
                int64_t rows, int64_t length, double* out);
};

// The fastest kernels that this processor and KTFAST_SIMD allow.
FewKernels few_kernels();

FewKernels few_kernels_scalar();
FewKernels few_kernels_avx2();

}  // namespace ktfast::cpu
