// Loops that the compiler vectorises; included by one file per instruction set.
#pragma once

#include <type_traits>

#include "kmeans_update/cpu/sum_kernels.h"
#include "kmeans_update/sum_math.h"

namespace ktfast::cpu {
namespace {  // unnamed, because each including file is built with its own flags

void add(const void* values, ElementType type, const double* __restrict__ scale, int64_t length,
         bool leaves, int64_t* __restrict__ sums) {
  with_element(type, [&](auto* element) {
    const auto* x = static_cast<decltype(element)>(values);
    if (leaves) {
      for (int64_t f = 0; f < length; ++f) sums[f] -= fixed_point(to_double(x[f]), scale[f]);
    } else {
      for (int64_t f = 0; f < length; ++f) sums[f] += fixed_point(to_double(x[f]), scale[f]);
    }
  });
}

void add_weighted(const void* values, ElementType type, double weight, int64_t length,
                  double* __restrict__ sums) {
  with_element(type, [&](auto* element) {
    const auto* x = static_cast<decltype(element)>(values);
    for (int64_t f = 0; f < length; ++f) sums[f] += weight * to_double(x[f]);
  });
}

void range(const void* values, ElementType type, int64_t rows, int64_t stride, int64_t length,
           double* __restrict__ largest) {
  with_element(type, [&](auto* element) {
    const auto* x = static_cast<decltype(element)>(values);
    for (int64_t row = 0; row < rows; ++row, x += stride) {
      for (int64_t f = 0; f < length; ++f) {
        const double size = magnitude(to_double(x[f]));
        largest[f] = size > largest[f] ? size : largest[f];
      }
    }
  });
}

double mean(const int64_t* sums, int64_t count, const double* step, const double* previous,
            int64_t length, double* __restrict__ center) {
  double lanes[kShiftLanes] = {};
  for (int64_t f = 0; f < length; f += kShiftLanes) {
    const int64_t width = length - f < kShiftLanes ? length - f : kShiftLanes;
    for (int64_t lane = 0; lane < width; ++lane) {
      const double before = previous[f + lane];
      const double after = mean_of(sums[f + lane], count, step[f + lane], before);
      center[f + lane] = after;
      lanes[lane] += squared_move(after, before);
    }
  }
  return tree_sum(lanes);
}

constexpr SumKernels kSumKernels{add, add_weighted, range, mean};

}  // namespace
}  // namespace ktfast::cpu
