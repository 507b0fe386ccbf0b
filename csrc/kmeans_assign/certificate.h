// The arithmetic of kmeans_assign that its backends share: the exact distance and the certificate.
//
// Rows and centres are shifted by a float32 vector near their mean, x' = x - m and c' = c - m, so
// the score of a centre is |c'|^2 / 2 - x'.c' = (|x - c|^2 - |x'|^2) / 2.
#pragma once

#include "kmeans_assign/kmeans_assign.h"

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/host_device.h"

namespace ktfast {

// The exact distance adds feature p to partial sum p mod 32, and then the partial sums as a tree:
// wide enough for SIMD, and one warp's natural order. It is never contracted to fused
// multiply-adds.
constexpr int kDistanceLanes = 32;

// Twice the largest error of a score difference: centres whose float32 scores differ by more are
// ordered as their exact distances are. Infinite where float32 may overflow.
//
// With u = 2^-24, a product summed in chains of L roundings, m chains, makes a score err by at most
//   u |x'| |c'| (L + m + 4)   the chains, their sum, the roundings of x', c' and the difference
//   + u |c'|^2 / 2            rounding of the first term
//   + 2^-149 (d + ...)        underflow of products
// and half an exact distance by (d / 32 + 8) 2^-53 (|x'| + |c'|)^2 / 2. Each is taken generously.
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
// With the code xq of x' and cq of c', and with the lengths of what the codes leave out,
//   x'.c' <= xq.cq + |x' - xq| |c'| + |xq| |c' - cq|.
// With an orthonormal basis the codes stand for coordinates in it, and the parts outside of it, of
// lengths t(x) and t(c), add at most t(x) t(c). So a product of codes bounds the score from below.

// Partial sums of the float32 products of single pairs, and of sums of squares.
constexpr int kDotLanes = 16;
constexpr int kSquareLanes = 64;

// Features per chain of roundings where float codes are multiplied; longer products add up chains.
constexpr int64_t kChainLength = 256;

// Scale of int8 codes; positive for a row of zeros, so that its inverse is finite.
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

// Relative error of a float32 sum of squares over kSquareLanes chains, with some to spare.
KTFAST_HD double square_error(int64_t n_features) {
  return 6.0e-8 * (static_cast<double>(n_features) / kSquareLanes + 16);
}

// Roundings of a product of codes, per |xq| |cq|. Products of int8 codes are exact, but they and
// the offset of the centres' codes, up to sqrt(d) times as large, are converted to float.
KTFAST_HD double product_error(int64_t n_coordinates, CodeType code) {
  const double d = static_cast<double>(n_coordinates);
  if (code == CodeType::int8) return 1.8e-7 * (sqrt(d) + 8);
  const double chain = static_cast<double>(kChainLength);
  return 6.0e-8 * ((d < chain ? d : chain) + d / chain + 8);
}

// Roundings of a screened score, besides those of the product: of x', of the half norm and of three
// float32 operations, each a few 2^-24 of (|x'| + |c'|)^2.
constexpr double kScoreRounding = 1e-6;
// Lengths between which none of the screen's float32 arithmetic can over- or underflow.
constexpr float kLeastLength = 1e-10f;
constexpr float kGreatestLength = 1e15f;

}  // namespace ktfast
