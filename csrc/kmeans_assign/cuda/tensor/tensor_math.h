// The error bounds of the tensor-core screen, and the data that its kernels share.
//
// With the code xq of x' and the code cq of c',
//   x'.c' <= xq.cq + |x' - xq| |c'| + |xq| |c' - cq|.
// So a product of codes gives a lower bound of the score |c'|^2 / 2 - x'.c' and, with the opposite
// sign of the error, an upper bound. A centre whose lower bound exceeds the upper bound of another
// centre is not the nearest.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/host_device.h"
#include "kmeans_assign/certificate.h"
#include "kmeans_assign/kmeans_tensor.h"

namespace ktfast::cuda {

// The numbers that the screen needs beside a row's code. Lengths are rounded up.
struct alignas(16) RowConstants {
  float inverse_scale;
  float residual;  // |x' - xq|
  float length;    // |xq|
  float norm;      // |x'|
};
static_assert(sizeof(RowConstants) == kTensorConstants * sizeof(float));

// The numbers of a tile of centres: the largest value of any of its centres.
struct alignas(16) TileConstants {
  float inverse_scale;
  float norm;
  float residual;
  float largest;  // the largest magnitude of a number
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

// The scale of codes of numbers up to `largest`. The scale of float16 is the power of two that
// brings the largest number between 1 and 2. So nothing overflows, and numbers that become
// subnormal are negligible.
KTFAST_HD float code_scale(float largest, TensorCode code) {
  if (code == TensorCode::int8) return int8_scale(largest);
  const float bounded = largest < 1e-18f ? 1e-18f : largest > 1e18f ? 1e18f : largest;
  return float_from_bits(bits_of(bounded) & 0x7f800000u);
}

// A float rounded to float16, ties to even. A number beyond the range becomes infinite.
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
  if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 rounds as float16 does
    const float shifted = float_from_bits(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (bits_of(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
#endif
}

// |x'| from the float64 sum of squares of its float32 elements.
KTFAST_HD double code_norm(double square) { return sqrt(square) * (1 + 2e-7); }

// |x' - xq| from the float64 sum of squares of x' - xq. The result includes the rounding errors of
// x' and of the differences.
KTFAST_HD double code_residual(double square, double norm) {
  return sqrt(square) * (1 + 1e-11) + 2.5e-7 * norm + 1e-30;
}

// A lower bound of |x'|^2, from the upper bound of |x'|.
KTFAST_HD double least_square(float norm) {
  const double length = static_cast<double>(norm) * (1 - 6e-7);
  return length * length;
}

// An upper bound of a squared distance after the centre has moved by at most `move`, by the
// triangle inequality. The factors exceed the rounding errors of an exact distance and of this
// function.
KTFAST_HD double carried_bound(double square, double move) {
  const double length = sqrt(square * (1 + 1e-12)) + move;
  return length * length * (1 + 1e-12);
}

// An upper bound of a squared distance, from upper bounds of |x'| and of the score.
KTFAST_HD double bound_of_score(float norm, float score) {
  const double square = static_cast<double>(norm) * static_cast<double>(norm);
  const double bound = square * (1 + 1e-12) + 2 * static_cast<double>(score);
  return bound > 0 ? bound : 0;
}

// A lower bound of the distance to a centre, from the upper bound of |x'| and a lower bound of the
// score; -1 if nothing is known.
KTFAST_HD double distance_of_score(float norm, float score) {
  const double square = (least_square(norm) + 2 * static_cast<double>(score)) * (1 - 1e-12);
  return square > 0 ? sqrt(square) : -1;
}

// A lower bound of the distance to each of some centres after each has moved by at most `move`.
KTFAST_HD double carried_other(double distance, double move) {
  return (distance - move) * (1 - 1e-12);
}

// Whether a centre is nearer than all others, from an upper bound of its squared distance and a
// lower bound of the distances to the others. The factor exceeds the rounding errors of the exact
// distances that would decide otherwise.
KTFAST_HD bool excludes_others(double square, double other) {
  return other > 0 && square < other * other * (1 - 3e-12);
}

// Upper bound of the rounding error of a product of codes, as a multiple of |xq| |cq|.
//
// A product of int8 codes is exact, and is rounded once when it is converted to float.
//
// The products of two float16 numbers are exact. A tensor core adds a block of them to the sum at
// once. It truncates each addend some binary places below the largest addend, and the new sum to
// 23 binary places:
//   Volta                4 products, 23 places  [1]
//   Turing, Ampere, Ada  4 or 8 products, 24 places  [1, 2, 3]
//   Hopper               16 products, 25 places  [2, 3]
//   Blackwell            16 or 32 products, 25 places  [2, 3]
// [1] M. Fasi, N. J. Higham, M. Mikaitis, S. Pranesh: "Numerical behavior of NVIDIA tensor cores",
//     PeerJ Computer Science, 2021.
// [2] P. Xie, Y. Wang, F. Yang, M. Yang: "MMA-Sim: Bit-Accurate Reference Model of Tensor Cores and
//     Matrix Cores", arXiv:2511.10909, 2025; its model of wgmma adds 16 products with 25 places.
// [3] F. A. Khattak, M. Mikaitis: "Accurate Models of NVIDIA Tensor Cores", arXiv:2512.07004, 2025;
//     its model H100TC has blocks of 16 and two extra bits.
// No addend and no sum exceeds |xq| |cq|. So a block of b products with e places has an error of at
// most (b + 1) 2^-e + 2^-23 times that. Per feature, Volta's 6 x 2^-23 / 4 = 1.8e-7 is the most;
// Hopper's is 5.25 x 2^-23 / 16 = 3.9e-8. The code assumes that later generations are no less
// accurate than Volta.
KTFAST_HD float tensor_product_error(int64_t n_features, TensorCode code) {
  if (code == TensorCode::int8) return 1.2e-7f;
  return 2.0e-7f * static_cast<float>(n_features + 32);
}

// Upper bound of the difference between a score and the score computed from the product of codes.
KTFAST_HD float screen_error(const RowConstants& row, const TileConstants& tile,
                             float product_error) {
  const float reach = row.norm + tile.norm;
  const float length = tile.norm + tile.residual;
  const float error = row.residual * tile.norm + row.length * tile.residual +
                      product_error * row.length * length +
                      static_cast<float>(kScoreRounding) * reach * reach + 1e-30f;
  return error * 1.00001f;
}

// --- The least score of a row, updated by an atomic minimum of 64 bits ---

// Bits in the order of the floats, except for NaN.
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

constexpr unsigned long long kNoScore = 0xff800000ffffffffull;  // infinite, no centre

// --- Workspace of one call, in 8-byte words ---

// The most candidates of one row: one per lane of a warp. A row with more is compared with every
// centre.
constexpr int64_t kCandidates = 32;

struct TensorWorkspace {
  int64_t best, candidates, limits, counts, others, active, size;

  KTFAST_HD explicit TensorWorkspace(int64_t n_rows)
      : best(0),                                    // [n] packed score
        candidates(best + n_rows),                  // [n, kCandidates] packed lower bound
        limits(candidates + n_rows * kCandidates),  // [n] float
        counts(limits + (n_rows + 1) / 2),          // [n] int32
        others(counts + (n_rows + 1) / 2),          // [n] ordered bits of a float
        active(others + (n_rows + 1) / 2),          // [1 + row tiles] int32: how many, and which
        size(active + (n_rows + kTensorTileRows - 1) / kTensorTileRows / 2 + 1) {}
};

}  // namespace ktfast::cuda
