// The arithmetic of kmeans_assign that both backends share: the exact distance and the certificate.
//
// Rows and centres are shifted by the float32 mean of the centres, x' = x - m and c' = c - m, so
// the score of a centre is |c'|^2 / 2 - x'.c' = (|x - c|^2 - |x'|^2) / 2.
#pragma once

#include <cmath>
#include <cstdint>

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

}  // namespace ktfast
