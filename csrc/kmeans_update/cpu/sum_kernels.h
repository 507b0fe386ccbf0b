// The inner loops of the integer sums: one table of functions per instruction set. Every table
// compiles sum_loops.h, so all give the same bits.
#pragma once

#include "kmeans_update/kmeans_update.h"

#include <cstdint>

#include "common/element.h"

namespace ktfast::cpu {

// A task adds at most this many features of one cluster's rows, so that the sums stay in the
// first-level cache. range() takes no more.
constexpr int64_t kTaskFeatures = 256;

struct SumKernels {
  // Adds values[f] * scale[f] to sums[f], or subtracts it, in fixed point.
  void (*add)(const void* values, ElementType type, const double* scale, int64_t length,
              bool leaves, int64_t* sums);
  // Moves values[f] * scale[f], in fixed point, from left[f] to joined[f]; only adds if left is
  // null.
  void (*move)(const void* values, ElementType type, const double* scale, int64_t length,
               int64_t* joined, int64_t* left);
  // Adds weight * values[f] * scale[f] to the sum of two limbs high[f], low[f], without a carry.
  void (*add_limbs)(const void* values, ElementType type, double weight, const double* scale,
                    int64_t length, int64_t* high, int64_t* low);
  // Carries from low[f] to high[f].
  void (*carry)(int64_t length, int64_t* high, int64_t* low);
  // Adds weight * values[f] to sums[f].
  void (*add_weighted)(const void* values, ElementType type, double weight, int64_t length,
                       double* sums);
  // Raises largest[f] to the largest magnitude of values[r, f], for at most kTaskFeatures features.
  void (*range)(const void* values, ElementType type, int64_t rows, int64_t stride, int64_t length,
                double* largest);
  // Computes the centre of a cluster and returns its squared movement.
  double (*mean)(const KmeansMeansParams& p, int64_t cluster);
};

// The address of a feature of a row.
inline const char* place(const void* x, ElementType type, int64_t n_features, int64_t row,
                         int64_t feature) {
  return static_cast<const char*>(x) + (row * n_features + feature) * element_size(type);
}

// The fastest loops that this processor and KTFAST_SIMD allow.
SumKernels sum_kernels();

SumKernels sum_kernels_avx2();
SumKernels sum_kernels_avx512();

}  // namespace ktfast::cpu
