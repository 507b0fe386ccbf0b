// The layout of the CPU's prepared centres, and bounds of vectors' lengths.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "common/size.h"
#include "kmeans_assign/certificate.h"
#include "kmeans_assign/cpu/kernels.h"

namespace ktfast::cpu {

inline int64_t round_up(int64_t value, int64_t multiple) {
  return Size(value).rounded_up(multiple).value();
}

// Aligns a buffer to a cache line, so that a word of a column lies within one line. Python
// allocates every buffer with 16 floats more than it needs.
template <class T>
T* aligned(T* buffer) {
  const auto address = reinterpret_cast<uintptr_t>(buffer);
  return reinterpret_cast<T*>((address + 63) / 64 * 64);
}

// How many numbers of a vector are coded: its features, or its coordinates in a basis.
inline int64_t coded_length(int64_t n_features, int64_t n_coordinates) {
  return n_coordinates > 0 ? n_coordinates : n_features;
}

inline int64_t code_words(int64_t length, CodeType code) {
  constexpr int64_t sizes[] = {4, 2, 1};
  const Size bytes = Size(length) * sizes[static_cast<int>(code)];
  const int64_t words = bytes.parts(kWordBytes).value();
  return code == CodeType::int8 ? round_up(words, kInt8Words) : words;
}

// Bounds that hold for every centre of a panel. Centres are sorted into panels by their largest
// number, so that the bounds of a panel are nearly those of each of its centres.
struct PanelConstants {
  float scale;
  float norm;      // longest |c'|
  float residual;  // largest |c' - cq|
};

// Far centres have a panel of their own. In a common panel their large numbers would decide the
// scale of all codes, and the codes of near centres would lose their precision. There are at most
// this many far centres. A far centre's largest number is at least kFarRatio times as large as the
// largest number of any near centre.
constexpr int64_t kMostFarCenters = 16;
constexpr float kFarRatio = 4;

// The lengths of near and far centres. Stored at the start of the memory of the prepared centres.
struct PreparedHeader {
  float longest;       // |c'|
  float near_longest;  // |c'| of near centres
  float far_shortest;  // |c'| of far centres, infinite without any
  int32_t n_near;
  int32_t has_boxes;  // whether the panels of near centres have boxes
};

struct PreparedLayout {
  // The memory has room for `n_panels` panels. The panels of near centres come first. The panel of
  // far centres, if there are any, follows.
  int64_t n_clusters, n_panels, n_slots, words, width;
  int64_t mean, shifted, norms, halves, half_norms, tails, ids, constants, boxes, panel_of, panels,
      scratch, size;

  PreparedLayout(int64_t n_clusters, int64_t n_features, int64_t n_coordinates, CodeType code)
      : n_clusters(n_clusters),
        n_panels((Size(n_clusters).parts(kPanelWidth) + 1).value()),
        n_slots((Size(n_panels) * kPanelWidth).value()),
        words(code_words(coded_length(n_features, n_coordinates), code)),
        width(round_up(n_coordinates, kPanelWidth)),
        mean(16),
        shifted(after(mean, n_features)),
        norms(after(shifted, Size(round_up(n_clusters, kTileRows)) * n_features)),
        halves(after(norms, n_clusters)),
        half_norms(after(halves, n_clusters)),
        tails(after(half_norms, n_slots)),
        ids(after(tails, n_slots)),
        constants(after(ids, n_slots)),
        boxes(after(constants, Size(n_panels) * 3)),
        panel_of(after(boxes, Size(n_panels) * (2 * kPlaceNumbers))),
        panels(after(panel_of, n_clusters)),
        scratch(after(panels, Size(n_slots) * words)),
        size(after(scratch, Size(round_up(n_clusters, kTileRows)) * (Size(width) + 1))) {}

 private:
  // Where the next array starts: every array starts at a multiple of 16 floats.
  static int64_t after(int64_t start, Size length) {
    return (Size(start) + length.rounded_up(16)).value();
  }
};

struct Prepared {
  PreparedLayout at;
  PreparedHeader header;
  int64_t n_near_panels, n_far;
  const float* mean;                // [d]
  const float* shifted;             // [k, d] c'
  const float* norms;               // [k] |c'|, rounded up
  const float* halves;              // [k] |c'|^2 / 2
  const float* half_norms;          // [slots] the same, infinite where there is no centre
  const float* tails;               // [slots] length of the part of c' outside the basis
  const int32_t* ids;               // [slots] the centre, or -1
  const PanelConstants* constants;  // [panels]
  const float* boxes;               // [panels, 2, kPlaceNumbers] lower and upper corners
  const int32_t* panel_of;          // [k] the panel of a centre
  const float* panels;              // [panels, words, kPanelWidth]

  Prepared(const float* buffer, const PreparedLayout& layout)
      : at(layout),
        header(*reinterpret_cast<const PreparedHeader*>(aligned(buffer))),
        n_near_panels((header.n_near + kPanelWidth - 1) / kPanelWidth),
        n_far(layout.n_clusters - header.n_near),
        mean(aligned(buffer) + at.mean),
        shifted(aligned(buffer) + at.shifted),
        norms(aligned(buffer) + at.norms),
        halves(aligned(buffer) + at.halves),
        half_norms(aligned(buffer) + at.half_norms),
        tails(aligned(buffer) + at.tails),
        ids(reinterpret_cast<const int32_t*>(aligned(buffer) + at.ids)),
        constants(reinterpret_cast<const PanelConstants*>(aligned(buffer) + at.constants)),
        boxes(aligned(buffer) + at.boxes),
        panel_of(reinterpret_cast<const int32_t*>(aligned(buffer) + at.panel_of)),
        panels(aligned(buffer) + at.panels) {}

  int64_t count(int64_t panel) const {
    return panel < n_near_panels
               ? std::min<int64_t>(header.n_near - panel * kPanelWidth, kPanelWidth)
               : n_far;
  }
  // Whether every far centre is farther than every near centre from all rows of length <= norm:
  // |x' - c'| >= |c'| - |x'| for a far centre, and |x' - c'| <= |x'| + |c'| for a near one. The
  // margin exceeds all rounding errors, also those of float32 scores. False if a length is NaN.
  bool far_centers_lose(double norm) const {
    return static_cast<double>(header.far_shortest) >
           1.1 * (2 * norm + static_cast<double>(header.near_longest));
  }
};

// Upper bound of the error of a place, as a share of the vector's length. The place is computed in
// float64 and rounded to float32. The length of the rest comes from a difference of squares, so its
// error is the root of theirs. Each of d products adds at most 2.3e-16 to that difference.
inline double place_error(int64_t n_features) {
  return 4 * std::sqrt(2.3e-16 * (static_cast<double>(n_features) + 64)) + 2e-7;
}

inline float rounded_up(double value) {
  return std::nextafter(static_cast<float>(value), std::numeric_limits<float>::infinity());
}

// Upper bound of the length that is lost because squares below 2^-126 underflow in float32.
inline double lost_length(int64_t n) { return 1.1e-19 * std::sqrt(static_cast<double>(n)); }

// Bounds of the length of a float32 vector.
struct Lengths {
  double norm;    // upper bound of the length
  double square;  // lower bound of the squared length
  float largest;  // the largest magnitude of a number

  Lengths(const AssignKernels& kernels, const float* vector, int64_t n) {
    const Magnitude magnitude = kernels.magnitude(vector, n);
    const double sum = static_cast<double>(magnitude.square);
    norm = std::sqrt(sum) * (1 + square_error(n)) + lost_length(n);
    square = sum * (1 - 2 * square_error(n));
    largest = magnitude.largest;
  }
};

// If two float32 scores of `AssignKernels::dot` differ by more than this gap, the distances are in
// the order of the scores.
inline double pair_gap(double x_norm, float c_norm, int64_t n_features) {
  const int64_t chain = std::max<int64_t>(n_features / kDotLanes, 1);
  return static_cast<double>(certified_gap(x_norm, static_cast<double>(c_norm), n_features, chain));
}

// The float32 scores of some centres for a row x' (certificate.h).
inline void score_centers(const AssignKernels& kernels, const Prepared& centers,
                          const float* shifted, int64_t n_features, const int32_t* ids, int n,
                          float* scores) {
  for (int i = 0; i < n; i += kDots) {
    const float* vectors[kDots];
    float products[kDots];
    const int count = std::min(kDots, n - i);
    for (int j = 0; j < kDots; ++j) {
      vectors[j] = centers.shifted + ids[i + std::min(j, count - 1)] * n_features;
    }
    if (count > 1) {
      kernels.dots(shifted, vectors, n_features, products);
    } else {
      products[0] = kernels.dot(shifted, vectors[0], n_features);
    }
    for (int j = 0; j < count; ++j) scores[i + j] = centers.halves[ids[i + j]] - products[j];
  }
}

// Upper bound of the distance between coded numbers and their code. The numbers come from a vector
// of length `norm` and have an error of up to `error` times that length themselves.
inline double residual_length(const Encoded& encoded, int64_t length, double norm, double error) {
  const double roundings = 6.0e-8 * (static_cast<double>(length) + 16);
  return std::sqrt(static_cast<double>(encoded.residual_square)) * (1 + roundings) +
         (3e-7 + error) * norm + lost_length(length);
}

// Upper bound of the length of the part of a vector outside the basis, for coordinates with an
// error of up to `error` times the vector's length.
inline double tail_length(double norm, const Lengths& coordinates, double error) {
  const double square = norm * norm - coordinates.square + 2 * error * norm * coordinates.norm;
  return std::sqrt(std::max(0.0, square)) * (1 + 1e-6);
}

// Upper bound of the error of coordinates in a basis, as a multiple of the vector's length. The
// basis is not exactly orthonormal, and the products are rounded.
inline double projection_error(const KmeansBasis& basis, int64_t n_features) {
  if (basis.n_coordinates == 0) return 0;
  return 1.01 * (static_cast<double>(basis.error) +
                 std::sqrt(static_cast<double>(basis.n_coordinates)) *
                     product_error(n_features, CodeType::float32) +
                 2e-7);
}

// Computes the coordinates [.., width] of `count` vectors [.., n_features]. Both arrays have room
// for whole tiles.
inline void project(Product product, const KmeansBasis& basis, const float* vectors, int64_t count,
                    int64_t n_features, float* coordinates) {
  const int64_t width = round_up(basis.n_coordinates, kPanelWidth);
  const int64_t stride = n_features * static_cast<int64_t>(sizeof(float));
  float tile[kTileRows * kPanelWidth];
  for (int64_t row = 0; row < count; row += kTileRows) {
    for (int64_t column = 0; column < width; column += kPanelWidth) {
      for (int64_t p = 0; p < n_features; p += kChainLength) {
        product({basis.vectors + column * n_features, n_features, p,
                 std::min(kChainLength, n_features - p), vectors + row * n_features, stride, 1,
                 p > 0, tile});
      }
      for (int r = 0; r < kTileRows; ++r) {
        std::copy_n(tile + r * kPanelWidth, kPanelWidth, coordinates + (row + r) * width + column);
      }
    }
  }
}

}  // namespace ktfast::cpu
