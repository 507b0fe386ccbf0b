// The exact distance of kmeans_assign, and the error bounds of its approximate comparisons. Both
// backends share them; README.md derives them.
//
// A float32 vector m near the mean is subtracted from rows and centres: x' = x - m, c' = c - m. The
// score of a centre is |c'|^2 / 2 - x'.c' = (|x - c|^2 - |x'|^2) / 2. So the nearest centre has the
// least score.
#pragma once

#include "kmeans_assign/kmeans_assign.h"

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/host_device.h"

namespace ktfast {

// The exact distance adds the squared difference in feature p to partial sum p mod 32, and then
// adds the partial sums as a tree. This order suits SIMD registers and one warp of a GPU. Fused
// multiply-adds, which round differently, are never used.
constexpr int kDistanceLanes = 32;

// Returns a gap such that two centres whose float32 scores differ by more are in the order of their
// exact distances. The gap is infinite where float32 may overflow.
//
// The gap is twice the largest error of a score. With u = 2^-24, and a product that is summed in m
// chains of L roundings each, the error of a float32 score is at most
//   u |x'| |c'| (L + m + 4)   for the chains, their sum, the roundings of x' and c', the difference
//   + u |c'|^2 / 2            for the rounding of the first term
//   + 2^-149 (d + ...)        for products that underflow.
// The error of half an exact distance is at most (d / 32 + 8) 2^-53 (|x'| + |c'|)^2 / 2. The code
// rounds every constant up.
KTFAST_HD float certified_gap(double x_norm, double c_norm, int64_t n_features,
                              int64_t chain_length) {
  if (!(x_norm < 1e18 && c_norm < 1e18)) return static_cast<float>(HUGE_VAL);
  const double d = static_cast<double>(n_features);
  const double longest = static_cast<double>(chain_length);
  const double steps = (d < longest ? d : longest) + d / longest + 8;
  const double reach = x_norm + c_norm;
  const double score_error =
      6.0e-8 * (steps * x_norm * c_norm + c_norm * c_norm) + 1.5e-45 * (d + 1) * (reach + 1);
  const double exact_error = 1.2e-16 * (d / kDistanceLanes + 10) * reach * reach;
  return static_cast<float>(2.002 * (score_error + exact_error)) + 1e-44f;
}

// --- CPU: codes of rows and centres -----------------------------------------------------------
//
// With the code xq of x' and the code cq of c',
//   x'.c' <= xq.cq + |x' - xq| |c'| + |xq| |c' - cq|.
// With an orthonormal basis the codes are those of the coordinates in the basis. The parts of x'
// and c' outside the basis have lengths t(x) and t(c) and add at most t(x) t(c) to x'.c'. So a
// product of codes gives a lower bound of the score.

// How many partial sums the float32 product of two vectors has, and the sum of squares of one.
constexpr int kDotLanes = 16;
constexpr int kSquareLanes = 64;

// A product of float codes is summed in chains of this many features. A longer product adds up
// several chains.
constexpr int64_t kChainLength = 256;

// The scale of int8 codes. The scale of a row of zeros is positive, so that its inverse is finite.
KTFAST_HD float int8_scale(float reach) {
  const float scale = reach * (1.0f / 127);
  return scale > 1e-18f ? scale : 1e-18f;
}

// The upper 16 bits of a finite float rounded to bfloat16, ties to even.
KTFAST_HD uint32_t bfloat16_rounded(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

// Upper bound of the relative error of a float32 sum of squares in kSquareLanes chains.
KTFAST_HD double square_error(int64_t n_features) {
  return 6.0e-8 * (static_cast<double>(n_features) / kSquareLanes + 16);
}

// Upper bound of the rounding error of a product of codes, as a multiple of |xq| |cq|. Products of
// int8 codes are exact integers, but are rounded when they are converted to float. The part of the
// product that comes from the offset of the centres' codes is rounded too, and is up to sqrt(d)
// times as large as |xq| |cq|.
KTFAST_HD double product_error(int64_t n_coordinates, CodeType code) {
  const double d = static_cast<double>(n_coordinates);
  if (code == CodeType::int8) return 1.8e-7 * (sqrt(d) + 8);
  const double chain = static_cast<double>(kChainLength);
  return 6.0e-8 * ((d < chain ? d : chain) + d / chain + 8);
}

// Upper bound of the other rounding errors of a screened score, as a multiple of (|x'| + |c'|)^2:
// the errors of x', of the half norm and of three float32 operations, each a few times 2^-24.
constexpr double kScoreRounding = 1e-6;
// For vectors of lengths between these two, the float32 arithmetic of the screen neither overflows
// nor underflows.
constexpr float kLeastLength = 1e-10f;
constexpr float kGreatestLength = 1e15f;

}  // namespace ktfast
