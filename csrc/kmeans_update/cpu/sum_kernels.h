// The inner loops of the integer sums, one table per instruction set: all of them compile
// sum_loops.h, and give the same bits.
#pragma once

#include <cstdint>

#include "common/element.h"

namespace ktfast::cpu {

struct SumKernels {
  // sums[f] += or -= values[f] scale[f], in fixed point.
  void (*add)(const void* values, ElementType type, const double* scale, int64_t length,
              bool leaves, int64_t* sums);
  // sums[f] += weight values[f].
  void (*add_weighted)(const void* values, ElementType type, double weight, int64_t length,
                       double* sums);
  // largest[f] = the largest size of values[r, f] and of what it was.
  void (*range)(const void* values, ElementType type, int64_t rows, int64_t stride, int64_t length,
                double* largest);
  // One centre's mean; returns its squared move.
  double (*mean)(const int64_t* sums, int64_t count, const double* step, const double* previous,
                 int64_t length, double* center);
};

// Where a feature of a row lies.
inline const char* place(const void* x, ElementType type, int64_t n_features, int64_t row,
                         int64_t feature) {
  return static_cast<const char*>(x) + (row * n_features + feature) * element_size(type);
}

// The fastest for this machine, within KTFAST_SIMD.
SumKernels sum_kernels();

SumKernels sum_kernels_avx2();
SumKernels sum_kernels_avx512();

}  // namespace ktfast::cpu
