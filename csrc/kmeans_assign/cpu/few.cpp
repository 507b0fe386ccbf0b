#include "kmeans_assign/cpu/few.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "common/check.h"
#include "common/cpu_features.h"
#include "common/float_environment.h"
#include "common/parallel.h"
#include "kmeans_assign/cpu/few_kernels.h"
#include "kmeans_assign/cpu/row_block.h"

namespace ktfast::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// This many centres count as few in any dimension, because they fill at most one panel of the
// screen.
constexpr int64_t kFewCenters = kPanelWidth;
// More centres count as few if the scores of a row take at most about this many multiplications.
// Below that, distance bounds save no time in a fit of 20 iterations (measured on a Zen 3). A score
// takes one multiplication per feature, and its other work takes as long as kScoreCost
// multiplications.
constexpr int64_t kFewProducts = 3 << 13;
constexpr int64_t kScoreCost = 16;

// One thread's work on one block of rows.
class FewBlock {
 public:
  FewBlock(const KmeansAssignParams& params, float* workspace)
      : p_(params),
        kernels_(assign_kernels(CodeType::float32)),
        few_(few_kernels()),
        centers_(p_.prepared, PreparedLayout(p_.n_clusters, p_.n_features, 0, CodeType::float32)),
        chunk_(std::min(p_.n_features, kChainLength)),
        element_bytes_(element_size(p_.x_type)),
        row_(workspace),
        panel_(row_ + round_up(p_.n_features, 16)),
        products_(panel_ + kFewRows * chunk_) {}

  // With several chunks of features, the products of all centres are kept from chunk to chunk. With
  // one chunk, the products of a tile are ranked at once.
  static int64_t scored_centers(int64_t n_features, int64_t n_clusters) {
    return n_features <= kChainLength ? kTileRows : round_up(n_clusters, kTileRows);
  }
  static int64_t workspace_size(int64_t n_features, int64_t n_clusters) {
    const int64_t chunk = std::min(n_features, kChainLength);
    const Size panel_and_products =
        (Size(chunk) + scored_centers(n_features, n_clusters)) * kFewRows;
    return (panel_and_products + round_up(n_features, 16)).value();
  }

  void assign(int64_t first, int64_t count) {
    if (p_.n_clusters == 1) {
      std::fill_n(p_.labels + first, count, 0);
    } else {
      label(first, count);
    }
    few_.exact(x(first, 0), p_.x_type, p_.centers, p_.labels + first, count, p_.n_features,
               p_.distances + first);
  }

  int64_t n_compared = 0;

 private:
  const void* x(int64_t row, int64_t feature) const {
    return static_cast<const char*>(p_.x) + (row * p_.n_features + feature) * element_bytes_;
  }
  void label(int64_t first, int64_t count);
  void rank(int64_t feature, int64_t length);
  void settle(int64_t row);

  const KmeansAssignParams& p_;
  const AssignKernels kernels_;
  const FewKernels few_;
  const Prepared centers_;
  const int64_t chunk_, element_bytes_;
  float* const row_;       // [n_features]
  float* const panel_;     // [kColumns, chunk, kColumnWidth]
  float* const products_;  // [scored_centers(), kFewRows]
  Ranking ranking_;
};

void FewBlock::label(int64_t first, int64_t count) {
  std::fill_n(ranking_.best, kFewRows, kInfinity);
  std::fill_n(ranking_.second, kFewRows, kInfinity);
  std::fill_n(ranking_.nearest, kFewRows, 0);
  double square = 0;  // at least the sum of squares of the longest row
  for (int64_t f = 0; f < p_.n_features; f += chunk_) {
    const int64_t length = std::min(chunk_, p_.n_features - f);
    square += static_cast<double>(
        few_.load(x(first, f), p_.x_type, p_.n_features, count, centers_.mean + f, length, panel_));
    rank(f, length);
  }
  const auto d = static_cast<double>(p_.n_features);
  const double norm = std::sqrt(square * (1 + 6.0e-8 * (static_cast<double>(chunk_) + 16))) +
                      1.1e-19 * std::sqrt(d);
  const PreparedHeader& header = centers_.header;
  const float longest = centers_.far_centers_lose(norm) ? header.near_longest : header.longest;
  const float gap = certified_gap(norm, static_cast<double>(longest), p_.n_features, kChainLength);
  std::copy_n(ranking_.nearest, count, p_.labels + first);
  // The comparison is negated so that a row with NaN counts as undecided.
  int undecided = 0;
  for (int r = 0; r < kFewRows; ++r) {
    undecided += !(ranking_.second[r] - ranking_.best[r] > gap);
  }
  if (undecided == 0) return;
  for (int64_t r = 0; r < count; ++r) {
    if (!(ranking_.second[r] - ranking_.best[r] > gap)) settle(first + r);
  }
}

// Adds the products of a chunk of the features. After the last chunk, ranks the centres.
void FewBlock::rank(int64_t feature, int64_t length) {
  const auto stride = static_cast<int64_t>(sizeof(float)) * p_.n_features;
  for (int64_t k = 0; k < p_.n_clusters; k += kTileRows) {
    float* products = products_ + (chunk_ == p_.n_features ? 0 : k * kFewRows);
    kernels_.product({panel_, length, 0, length, centers_.shifted + k * p_.n_features + feature,
                      stride, 1, feature > 0, products});
    if (feature + length < p_.n_features) continue;
    const int count = static_cast<int>(std::min<int64_t>(kTileRows, p_.n_clusters - k));
    few_.rank(products, centers_.halves + k, static_cast<int32_t>(k), count, ranking_);
  }
}

// Compares an undecided row with every centre.
void FewBlock::settle(int64_t row) {
  kernels_.shift(x(row, 0), p_.x_type, centers_.mean, p_.n_features, row_);
  p_.labels[row] = nearest_of_all(kernels_, centers_, p_, x(row, 0), row_).label;
  n_compared += p_.n_clusters;
}

}  // namespace

FewKernels few_kernels() {
#if defined(KTFAST_X86_SIMD)
  if (simd_level() != SimdLevel::scalar) return few_kernels_avx2();
#endif
  return few_kernels_scalar();
}

bool kmeans_is_few(int64_t n_clusters, int64_t n_features) {
  if (n_features == 0) return false;
  const int64_t score_cost = (Size(n_features) + kScoreCost).value();
  return n_clusters <= kFewCenters || n_clusters <= kFewProducts / score_cost;
}

bool has_few_centers(const KmeansAssignParams& p) {
  return p.code == CodeType::float32 && p.codes == nullptr && p.subset == nullptr &&
         p.bounds.near == nullptr && kmeans_is_few(p.n_clusters, p.n_features);
}

int64_t kmeans_few(const KmeansAssignParams& p) {
  const int64_t stride = BlockLayout(p.n_features, 0).size;
  KTFAST_CHECK(FewBlock::workspace_size(p.n_features, p.n_clusters) <= stride,
               "few centers need no more workspace than a block of the screen");
  const int64_t n_blocks = (p.n_rows + kFewRows - 1) / kFewRows;
  std::atomic<int64_t> n_compared{0};
  for_ranges(p.n_threads, n_blocks, [&](int64_t first, int64_t last, int thread) {
    const DefaultFloatEnvironment environment;
    FewBlock block(p, p.workspace + thread * stride);
    for (int64_t i = first; i < last; ++i) {
      block.assign(i * kFewRows, std::min<int64_t>(kFewRows, p.n_rows - i * kFewRows));
    }
    n_compared += block.n_compared;
  });
  return n_compared;
}

}  // namespace ktfast::cpu
