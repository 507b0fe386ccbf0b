// The distance of rows to a box. Plain C++, which the compiler turns into vector instructions.
#pragma once

#include <algorithm>

#include "kmeans_assign/cpu/kernels.h"

namespace ktfast::cpu {
namespace {  // unnamed, because each including file is built with its own flags

inline void box_gaps(const float* __restrict__ places, int64_t stride,
                     const float* __restrict__ box, int64_t n_rows, float* __restrict__ squares) {
  for (int64_t r = 0; r < n_rows; ++r) squares[r] = 0;
  for (int64_t i = 0; i < kPlaceNumbers; ++i) {
    const float low = box[i], high = box[kPlaceNumbers + i];
    const float* place = places + i * stride;
    for (int64_t r = 0; r < n_rows; ++r) {
      const float gap = std::max(std::max(low - place[r], place[r] - high), 0.0f);
      squares[r] += gap * gap;
    }
  }
}

}  // namespace
}  // namespace ktfast::cpu
