// The arithmetic of sums that both backends share, so that they give the same bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/host_device.h"

namespace ktfast {

// A centre's squared move adds feature f to partial sum f mod 32, and then the partial sums as a
// tree: one warp's natural order.
constexpr int kShiftLanes = 32;

// A total over the rows adds row r of 4,096 to partial sum r mod 256, and then these as a tree; the
// totals of 4,096 rows are added up alike. One block's natural order, wherever the rows lie.
constexpr int kTotalLanes = 256;
constexpr int64_t kTotalRows = 4096;

// Sums and products that are rounded one by one; nvcc would contract them otherwise.
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

// x scale rounded to an integer, by way of the bits of a double whose last one counts ones.
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

// A number's size, infinite if it is not finite.
KTFAST_HD double magnitude(double value) {
  const double size = fabs(value);
  return size < HUGE_VAL ? size : HUGE_VAL;  // a NaN compares as false
}

// An integer sum's mean in float32, or the previous centre of an empty cluster.
KTFAST_HD double mean_of(int64_t sum, int64_t count, double step, double previous) {
  if (count <= 0) return previous;
  const double mean = multiply(static_cast<double>(sum), step) / static_cast<double>(count);
  return static_cast<double>(static_cast<float>(mean));
}

// What a feature adds to its centre's squared move.
KTFAST_HD double squared_move(double center, double previous) {
  const double move = add(center, -previous);
  return multiply(move, move);
}

// Adds up the lanes, whose number is a power of two, as a tree; changes them.
template <int kLanes>
KTFAST_HD double tree_sum(double (&lanes)[kLanes]) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

}  // namespace ktfast
