// The certificate of the tensor-core screen, and what its kernels agree upon.
//
// With the code xq of x' and cq of c', and with the lengths of what the codes leave out,
//   x'.c' <= xq.cq + |x' - xq| |c'| + |xq| |c' - cq|,
// so a product of codes bounds the score |c'|^2 / 2 - x'.c' from below and, with the other sign,
// from above. A centre whose lower bound exceeds any upper bound of the row's is not the nearest.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/host_device.h"
#include "kmeans_assign/certificate.h"
#include "kmeans_assign/kmeans_tensor.h"

namespace ktfast::cuda {

// What is known of a row besides its code; lengths are rounded up.
struct alignas(16) RowConstants {
  float inverse_scale;
  float residual;  // |x' - xq|
  float length;    // |xq|
  float norm;      // |x'|
};
static_assert(sizeof(RowConstants) == kTensorConstants * sizeof(float));

// And of a tile of centres: the most of each.
struct alignas(16) TileConstants {
  float inverse_scale;
  float norm;
  float residual;
  float largest;  // magnitude of a number
};

KTFAST_HD float rounded_up(double value) {
  return nextafterf(static_cast<float>(value), static_cast<float>(HUGE_VAL));
}

KTFAST_HD uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

KTFAST_HD int feature_bytes(TensorCode code) { return code == TensorCode::int8 ? 1 : 2; }

// Scale of codes of numbers up to `largest`. float16: the power of two that makes the largest lie
// between 1 and 2, so that nothing overflows and what becomes subnormal is negligible.
KTFAST_HD float code_scale(float largest, TensorCode code) {
  if (code == TensorCode::int8) return int8_scale(largest);
  const float bounded = largest < 1e-18f ? 1e-18f : largest > 1e18f ? 1e18f : largest;
  return float_from_bits(bits_of(bounded) & 0x7f800000u);
}

// A float rounded to float16, ties to even; beyond its range infinite.
KTFAST_HD uint16_t float16_rounded(float value) {
#if defined(__CUDA_ARCH__)
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
#else
  const uint32_t bits = bits_of(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7fffu);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {  // subnormal: the sum's rounding is the half's
    const float shifted = float_from_bits(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (bits_of(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
#endif
}

// |x'| from the float64 sum of squares of its float32 elements.
KTFAST_HD double code_norm(double square) { return sqrt(square) * (1 + 2e-7); }

// |x' - xq| from the float64 sum of squares of x' - xq; besides x' itself, a difference is rounded.
KTFAST_HD double code_residual(double square, double norm) {
  return sqrt(square) * (1 + 1e-11) + 2.5e-7 * norm + 1e-30;
}

// A row's |x'|^2 at least, from its norm.
KTFAST_HD double least_square(float norm) {
  const double length = static_cast<double>(norm) * (1 - 6e-7);
  return length * length;
}

// Roundings of a product of codes, per |xq| |cq|. int8: exact, then converted to float.
//
// float16: products are exact. A tensor core adds blocks of at least four of them to the sum so far
// at once: each addend is cut off 23 binary places below the largest, and so is the result. (M.
// Fasi, N. J. Higham, M. Mikaitis, S. Pranesh: "Numerical behavior of NVIDIA tensor cores", 2021,
// found this on three generations; later ones are taken to be no worse.) No addend exceeds
// |xq| |cq|, so a block of four errs by at most 6 x 2^-23 of that, 1.8e-7 a feature.
KTFAST_HD float tensor_product_error(int64_t n_features, TensorCode code) {
  if (code == TensorCode::int8) return 1.2e-7f;
  return 2.0e-7f * static_cast<float>(n_features + 32);
}

// How far a score may be from what the product of codes makes of it.
KTFAST_HD float screen_error(const RowConstants& row, const TileConstants& tile,
                             float product_error) {
  const float reach = row.norm + tile.norm;
  const float length = tile.norm + tile.residual;
  const float error = row.residual * tile.norm + row.length * tile.residual +
                      product_error * row.length * length +
                      static_cast<float>(kScoreRounding) * reach * reach + 1e-30f;
  return error * 1.00001f;
}

// --- The least score of a row, kept by an atomic minimum of 64 bits
// -------------------------------

// Ordered as the floats are, but for NaN.
KTFAST_HD uint32_t ordered_bits(float value) {
  const uint32_t bits = bits_of(value);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

KTFAST_HD unsigned long long packed_score(float score, uint32_t center) {
  return static_cast<unsigned long long>(ordered_bits(score)) << 32 | center;
}

KTFAST_HD float score_of(unsigned long long packed) {
  const auto bits = static_cast<uint32_t>(packed >> 32);
  return float_from_bits((bits & 0x80000000u) != 0 ? bits & 0x7fffffffu : ~bits);
}

constexpr unsigned long long kNoScore = 0xff800000ffffffffull;  // infinite, of no centre

// --- Workspace of one call, in 8-byte words
// -------------------------------------------------------

// Centres that may pass the screen of one row; where more do, all are compared. One per lane.
constexpr int64_t kCandidates = 32;

struct TensorWorkspace {
  int64_t best, candidates, limits, counts, queue, size;

  KTFAST_HD explicit TensorWorkspace(int64_t n_rows)
      : best(0),                                    // [n] packed score
        candidates(best + n_rows),                  // [n, kCandidates] packed lower bound
        limits(candidates + n_rows * kCandidates),  // [n] float
        counts(limits + (n_rows + 1) / 2),          // [n] int32
        queue(counts + (n_rows + 1) / 2),           // int32: length, rows that all are compared for
        size(queue + (n_rows + 2) / 2) {}
};

}  // namespace ktfast::cuda
