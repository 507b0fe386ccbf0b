// The arithmetic of sums. Both backends share it, so that they give the same bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/host_device.h"

namespace ktfast {

// The squared movement of a centre adds feature f to partial sum f mod 32, and then adds the
// partial sums as a tree. This order suits one warp.
constexpr int kShiftLanes = 32;

// A total over 4,096 rows adds row r to partial sum r mod 256, and then adds the partial sums as a
// tree. The totals of all groups of 4,096 rows are added in the same way. This order suits one CUDA
// block.
constexpr int kTotalLanes = 256;
constexpr int64_t kTotalRows = 4096;

// Sums and products that are rounded separately. Without these functions nvcc would fuse them.
KTFAST_HD double add(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dadd_rn(a, b);
#else
  return a + b;
#endif
}
KTFAST_HD double multiply(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

// x * scale rounded to an integer. The last bit of a double near 1.5 x 2^52 has the value 1. So
// adding 1.5 x 2^52 rounds the product to an integer, which is the difference between the bits of
// the sum and the bits of 1.5 x 2^52.
KTFAST_HD int64_t fixed_point(double value, double scale) {
  constexpr double kOnes = 6755399441055744.0;  // 1.5 x 2^52
  const double ones = kOnes;
  const double rounded = add(multiply(value, scale), ones);
  int64_t bits;
  memcpy(&bits, &rounded, sizeof bits);
  int64_t zero;
  memcpy(&zero, &ones, sizeof zero);
  return bits - zero;
}

// The magnitude of a number; infinite for NaN.
KTFAST_HD double magnitude(double value) {
  const double size = fabs(value);
  return size < HUGE_VAL ? size : HUGE_VAL;  // a NaN compares as false
}

// The mean of an integer sum in float32, or the previous value if the cluster is empty.
KTFAST_HD double mean_of(int64_t sum, int64_t count, double step, double previous) {
  if (count <= 0) return previous;
  const double mean = multiply(static_cast<double>(sum), step) / static_cast<double>(count);
  return static_cast<double>(static_cast<float>(mean));
}

// The square that a feature adds to the squared movement of its centre.
KTFAST_HD double squared_move(double center, double previous) {
  const double move = add(center, -previous);
  return multiply(move, move);
}

// Adds the lanes as a tree and overwrites them. Their number is a power of two.
template <int kLanes>
KTFAST_HD double tree_sum(double (&lanes)[kLanes]) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

}  // namespace ktfast
