// A thread's workspace for a block of rows, the coding of a row, and the exact search of one row.
#pragma once

#include "kmeans_assign/cpu/prepared_centers.h"

namespace ktfast::cpu {

// A thread multiplies a block of this many rows by every panel, so that each panel is read once per
// block. A block has fewer rows if they would not fit a thread's share of a third-level cache.
constexpr int64_t kBlockRows = 96;
constexpr int64_t kBlockFloats = 1 << 20;
// The most candidates that are kept for one row. A row with more is compared with every centre.
constexpr int64_t kMaxCandidates = 128;

struct BlockLayout {
  int64_t rows, shifted, codes, products, candidates, bounds, size;

  BlockLayout(int64_t n_features, int64_t n_coordinates)
      : rows(std::clamp<int64_t>(
            kBlockFloats / std::max<int64_t>(n_features, 1) / kTileRows * kTileRows, kTileRows,
            kBlockRows)),
        shifted(0),
        codes((Size(shifted) + (Size(rows) * n_features).rounded_up(16)).value()),
        products(after(codes,
                       Size(coded_length(n_features, n_coordinates)).rounded_up(kPanelWidth) + 16)),
        candidates(after(products, kPanelWidth)),
        bounds(after(candidates, kMaxCandidates)),
        size(round_up(after(bounds, kMaxCandidates), 16)) {}

 private:
  // Where the array after an array [rows, length] starts.
  int64_t after(int64_t start, Size length) const { return (Size(start) + length * rows).value(); }
};

// The numbers that the screen needs beside a row's code. Lengths are rounded up.
struct RowCode {
  float scale;
  float residual;  // length of the difference between the coded numbers and their code
  float length;    // length of the code
  float tail;      // length of the part of x' outside the basis
  float norm;      // |x'|
  float square;    // |x'|^2, rounded down
  int32_t bias;    // what the offset of the centres' int8 codes adds to every product
};
static_assert(sizeof(RowCode) == kRowConstants * sizeof(float));

class RowEncoder {
 public:
  RowEncoder(const AssignKernels& kernels, CodeType code, int64_t n_features, int64_t n_coordinates,
             double projection)
      : kernels_(kernels),
        code_(code),
        n_features_(n_features),
        length_(coded_length(n_features, n_coordinates)),
        has_basis_(n_coordinates > 0),
        projection_(projection) {}

  // `coordinates` is read only with a basis. `codes` has room for code_words() words.
  RowCode encode(const float* shifted, const float* coordinates, void* codes) const {
    const Lengths whole(kernels_, shifted, n_features_);
    const Lengths part = has_basis_ ? Lengths(kernels_, coordinates, length_) : whole;
    const int64_t words = code_words(length_, code_);
    const int64_t padded = std::min<int64_t>(words, kInt8Words);
    std::fill_n(static_cast<int32_t*>(codes) + words - padded, padded, 0);
    const float* coded = has_basis_ ? coordinates : shifted;
    const float reach =
        code_ == CodeType::int8 ? kernels_.row_reach(coded, length_, part.largest) : 0.0f;
    const Encoded encoded = kernels_.encode(coded, length_, reach, code_, codes);
    const double residual = residual_length(encoded, length_, whole.norm, projection_);
    return {encoded.scale,
            rounded_up(residual),
            rounded_up(part.norm + residual),
            has_basis_ ? rounded_up(tail_length(whole.norm, part, projection_)) : 0.0f,
            rounded_up(whole.norm),
            static_cast<float>(whole.square * (1 - 2e-7)),
            encoded.sum * (kernels_.center_levels + 1)};
  }

 private:
  const AssignKernels& kernels_;
  const CodeType code_;
  const int64_t n_features_, length_;
  const bool has_basis_;
  const double projection_;
};

struct Nearest {
  int32_t label;
  double distance;
};

// Compares a row with every centre: computes all float32 scores, and then the exact distances of
// the centres whose scores are too close to the least.
inline Nearest nearest_of_all(const AssignKernels& kernels, const Prepared& centers,
                              const KmeansAssignParams& p, const void* x, const float* shifted) {
  const int64_t d = p.n_features;
  const auto score = [&](int64_t k) {
    return centers.halves[k] - kernels.dot(shifted, centers.shifted + k * d, d);
  };
  const auto exact = [&](int64_t k) {
    return kernels.squared_distance(x, p.x_type, p.centers + k * d, d);
  };
  float best = std::numeric_limits<float>::infinity();
  for (int64_t k = 0; k < p.n_clusters; ++k) best = std::min(best, score(k));
  const double norm = Lengths(kernels, shifted, d).norm;
  const PreparedHeader& header = centers.header;
  const float longest = centers.far_centers_lose(norm) ? header.near_longest : header.longest;
  const double limit = static_cast<double>(best) + pair_gap(norm, longest, d);
  Nearest found{0, exact(0)};
  for (int64_t k = 1; k < p.n_clusters; ++k) {
    // A score of NaN is not above the limit, so its centre is compared.
    if (static_cast<double>(score(k)) > limit) continue;
    const double distance = exact(k);
    if (distance < found.distance) found = {static_cast<int32_t>(k), distance};
  }
  return found;
}

}  // namespace ktfast::cpu
