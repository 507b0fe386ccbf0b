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

// A fixed-point number of two limbs is high + low / 2^kLowBits. The limbs of a row are added
// separately: |low| is at most 2^(kLowBits - 1) for one row, so int64 holds the low limbs of
// kLimbRows rows and of a sum. Then `carry` moves all but the last kLowBits bits of the low limb to
// the high limb.
constexpr int kLowBits = 44;
constexpr int64_t kLowUnits = int64_t{1} << kLowBits;
constexpr int64_t kLimbRows = int64_t{1} << 18;

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

struct Limbs {
  int64_t high, low;
};

// value * scale rounded to a multiple of 2^-kLowBits. The limbs of -value are the negative limbs.
KTFAST_HD Limbs limbs_of(double value, double scale) {
  constexpr double kOnes = 6755399441055744.0;  // as in fixed_point
  const double product = multiply(value, scale);
  const double whole = add(add(product, kOnes), -kOnes);
  const double rest = add(product, -whole);  // exact: at most 1/2, and in the bits of the product
  return {fixed_point(value, scale), fixed_point(rest, static_cast<double>(kLowUnits))};
}

// Moves bits from the low limb of a sum to the high limb until 0 <= low < 2^kLowBits.
KTFAST_HD void carry(int64_t& high, int64_t& low) {
  high += low >> kLowBits;
  low &= kLowUnits - 1;
}

// A sum of two limbs in units of 2^-kLowBits, rounded once.
KTFAST_HD double sum_of(int64_t high, int64_t low) {
  const double top = static_cast<double>(high);
  const int64_t dropped = high - static_cast<int64_t>(top);  // below 2^9, because |high| < 2^62
  return add(multiply(top, static_cast<double>(kLowUnits)),
             static_cast<double>(dropped * kLowUnits + low));
}

// The magnitude of a number; infinite for NaN.
template <class Float>
KTFAST_HD Float magnitude(Float value) {
  const Float infinity = static_cast<Float>(HUGE_VAL);
  const Float size = value < 0 ? -value : value;
  return size < infinity ? size : infinity;  // a NaN compares as false
}

// The mean of a sum, or the previous value if the cluster has no weight.
KTFAST_HD double mean_of(double sum, double weight, double step, double previous, bool narrow) {
  if (!(weight > 0)) return previous;
  const double mean = multiply(sum, step) / weight;
  return narrow ? static_cast<double>(static_cast<float>(mean)) : mean;
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
