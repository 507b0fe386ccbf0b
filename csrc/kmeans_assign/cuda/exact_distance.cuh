// The exact distance on a GPU, and the search for the least one. Both GPU screens decide their rows
// with these functions.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/element.h"
#include "kmeans_assign/certificate.h"

namespace ktfast::cuda {

constexpr unsigned kFullWarp = 0xFFFFFFFFu;

// Adds the lanes' values as a tree. Every lane returns the sum.
__device__ inline double warp_sum(double value) {
  for (int width = 16; width > 0; width /= 2) {
    value = __dadd_rn(value, __shfl_down_sync(kFullWarp, value, width));
  }
  return __shfl_sync(kFullWarp, value, 0);
}

// The exact distance of certificate.h: lane l of the warp is partial sum l. Every lane returns the
// distance.
template <class T>
__device__ double exact_distance(const T* x, const double* c, int64_t n_features, int lane) {
  double sum = 0;
  for (int64_t f = lane; f < n_features; f += kDistanceLanes) {
    const double difference = __dsub_rn(to_double(x[f]), c[f]);
    sum = __dadd_rn(sum, __dmul_rn(difference, difference));
  }
  return warp_sum(sum);
}

// The nearest of the centres that a warp has compared. Ties go to the lowest index.
struct Nearest {
  double distance;
  int64_t label;

  __device__ void consider(double other, int64_t k) {
    if (other < distance || (other == distance && k < label)) {
      distance = other;
      label = k;
    }
  }
};

// An element of a row less the mean, as the screens multiply it.
template <class T>
__device__ float shifted_value(T value, float mean) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return static_cast<float>(to_double(value) - static_cast<double>(mean));
  } else {
    return to_float(value) - mean;
  }
}

}  // namespace ktfast::cuda
