#include <algorithm>
#include <atomic>
#include <cmath>
#include <iterator>
#include <numeric>
#include <vector>

#include "common/check.h"
#include "common/float_environment.h"
#include "common/parallel.h"
#include "kmeans_assign/cpu/row_block.h"
#include "kmeans_assign/kmeans_reassign.h"

namespace ktfast::cpu {
namespace {

// Rows of one task of a thread.
constexpr int64_t kTaskRows = 512;

// Lower bounds are lowered and upper bounds raised by this share. It covers the rounding errors of
// their float32 arithmetic and of exact distances.
constexpr double kOutwards = 1e-6;

// Lists the centres of the largest drift, the largest first, and fills the rest of the list with
// -1.
void name_farthest(const float* drift, std::vector<int32_t>& centers, int32_t* farthest) {
  const auto n = std::min<int64_t>(kFarthest, static_cast<int64_t>(centers.size()));
  std::partial_sort(centers.begin(), centers.begin() + n, centers.end(), [=](int32_t a, int32_t b) {
    return drift[a] > drift[b] || (drift[a] == drift[b] && a < b);
  });
  std::copy_n(centers.begin(), n, farthest);
  std::fill(farthest + n, farthest + kFarthest, -1);
}

// The centres, besides the row's own, that a row must be compared with.
struct Candidates {
  int32_t ids[kNearCenters + kFarthest];
  int n = 0;
  bool too_many = false;
};

// One thread's work.
class Rows {
 public:
  Rows(const KmeansReassignParams& params, const AssignKernels& kernels, float* workspace)
      : p_(params),
        kernels_(kernels),
        centers_(p_.prepared,
                 PreparedLayout(p_.n_clusters, p_.n_features, p_.n_coordinates, p_.code)),
        shifted_(workspace),
        row_bytes_(p_.n_features * element_size(p_.x_type)) {}

  void reassign(int64_t row);

  int64_t n_pairs = 0;

 private:
  const void* x(int64_t row) const { return static_cast<const char*>(p_.x) + row * row_bytes_; }
  double exact(int64_t row, int64_t k) const {
    return kernels_.squared_distance(x(row), p_.x_type, p_.centers + k * p_.n_features,
                                     p_.n_features);
  }
  float score(int64_t k) const {
    return centers_.halves[k] -
           kernels_.dot(shifted_, centers_.shifted + k * p_.n_features, p_.n_features);
  }
  Candidates candidates(int64_t row) const;
  void compare(int64_t row, const Candidates& found);

  const KmeansReassignParams& p_;
  const AssignKernels& kernels_;
  const Prepared centers_;
  float* const shifted_;
  const int64_t row_bytes_;
};

void Rows::reassign(int64_t row) {
  const int32_t label = p_.labels[row];
  if (p_.drift.moved[label]) {
    p_.distances[row] = exact(row, label);
    ++n_pairs;
  }
  const Candidates found = candidates(row);
  const int64_t spent = p_.bounds.spent[row] + found.n;
  p_.pending[row] = found.too_many || spent > p_.budget;
  if (p_.pending[row]) return;
  p_.bounds.spent[row] = static_cast<uint16_t>(spent);
  if (found.n > 0) compare(row, found);
}

// Collects the centres that may have become nearer than the row's own centre. A centre is skipped
// if its bound less its drift exceeds the row's distance. If the row's own centre has not moved,
// centres that have not moved either are skipped too, because they were farther before.
Candidates Rows::candidates(int64_t row) const {
  Candidates found;
  const int32_t label = p_.labels[row];
  const bool own_moved = p_.drift.moved[label] != 0;
  const auto reach = static_cast<float>(std::sqrt(p_.distances[row]) * (1 + kOutwards)) + 1e-37f;
  const int64_t epoch = p_.bounds.epoch[row];
  const float* drift = p_.drift.drift + epoch * p_.n_clusters;
  const int32_t* farthest =
      (own_moved ? p_.drift.farthest : p_.drift.farthest_moved) + epoch * kFarthest;
  const float slack = p_.bounds.rest_bound[row] * static_cast<float>(1 - kOutwards) - reach;
  int n = 0;
  for (; n < kFarthest && farthest[n] >= 0 && !(drift[farthest[n]] < slack); ++n) {
    if (farthest[n] != label) found.ids[found.n++] = farthest[n];
  }
  found.too_many = n == kFarthest;
  const int32_t* near = p_.bounds.near + row * kNearCenters;
  const float* bounds = p_.bounds.near_bounds + row * kNearCenters;
  for (int i = 0; i < kNearCenters && near[i] >= 0; ++i) {
    const int32_t k = near[i];
    const bool can_win = (own_moved || p_.drift.moved[k]) && !(bounds[i] - drift[k] > reach);
    if (can_win && k != label) found.ids[found.n++] = k;
  }
  return found;
}

// Computes float32 scores, and the exact distances of the centres whose scores are too close.
void Rows::compare(int64_t row, const Candidates& found) {
  kernels_.shift(x(row), p_.x_type, centers_.mean, p_.n_features, shifted_);
  const int32_t own = p_.labels[row];
  float scores[kNearCenters + kFarthest];
  float best = score(own);
  float longest = centers_.norms[own];
  score_centers(kernels_, centers_, shifted_, p_.n_features, found.ids, found.n, scores);
  for (int i = 0; i < found.n; ++i) {
    best = std::min(best, scores[i]);
    longest = std::max(longest, centers_.norms[found.ids[i]]);
  }
  n_pairs += found.n + 1;
  double& nearest = p_.distances[row];
  // An upper bound of |x'|, where x' and c' are the row and its centre minus the mean:
  // |x'| <= |x - c| + |c'|.
  const double norm =
      std::sqrt(nearest) * (1 + kOutwards) + static_cast<double>(centers_.norms[own]);
  const double limit = static_cast<double>(best) + pair_gap(norm, longest, p_.n_features);
  for (int i = 0; i < found.n; ++i) {
    if (static_cast<double>(scores[i]) > limit) continue;
    const int32_t k = found.ids[i];
    const double distance = exact(row, k);
    if (distance < nearest || (distance == nearest && k < p_.labels[row])) {
      nearest = distance;
      p_.labels[row] = k;
    }
  }
}

// Labels and epochs come from the caller and are used as indices.
void check_rows(const KmeansReassignParams& p) {
  for (int64_t row = 0; row < p.n_rows; ++row) {
    KTFAST_CHECK(p.labels[row] >= 0 && p.labels[row] < p.n_clusters,
                 "labels must lie between 0 and n_clusters - 1");
    KTFAST_CHECK(p.bounds.epoch[row] < p.n_epochs, "epochs must lie below the number of snapshots");
  }
}

// Sets whether centre k has moved since the last assignment, and its drift since each snapshot.
void measure_drift(const KmeansDriftParams& p,
                   decltype(AssignKernels::squared_distance) squared_distance, int64_t k) {
  const int64_t d = p.n_features;
  const double* now = p.centers + k * d;
  p.moved[k] = !std::equal(now, now + d, p.previous + k * d);
  for (int64_t e = 0; e < p.n_epochs; ++e) {
    if (!p.moved[k] && p.known[e]) continue;
    const float* then = p.snapshots + (e * p.n_clusters + k) * d;
    const double square = squared_distance(then, ElementType::float32, now, d);
    const double length = std::sqrt(square) + static_cast<double>(p.snapshot_error[e]);
    p.drift[e * p.n_clusters + k] = length > 0 ? rounded_up(length * (1 + kOutwards)) : 0.0f;
  }
}

// Lists the centres that have moved farthest since snapshot e.
void name_farthest_of(const KmeansDriftParams& p, int64_t e) {
  const float* drift = p.drift + e * p.n_clusters;
  std::vector<int32_t> centers(static_cast<size_t>(p.n_clusters));
  std::iota(centers.begin(), centers.end(), 0);
  name_farthest(drift, centers, p.farthest + e * kFarthest);
  std::iota(centers.begin(), centers.end(), 0);
  std::vector<int32_t> moved;
  std::copy_if(centers.begin(), centers.end(), std::back_inserter(moved),
               [&](int32_t k) { return p.moved[k] != 0; });
  name_farthest(drift, moved, p.farthest_moved + e * kFarthest);
}

}  // namespace

float kmeans_snapshot(const KmeansSnapshotParams& p) {
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  const int64_t d = p.n_features;
  const auto squared_distance = assign_kernels(CodeType::float32).squared_distance;
  const int n_threads = worthwhile_threads(p.n_threads, p.n_clusters * d);
  Maximum most;
  for_ranges(n_threads, p.n_clusters, [&](int64_t first, int64_t last, int) {
    const DefaultFloatEnvironment environment;
    double farthest = 0;
    for (int64_t k = first; k < last; ++k) {
      const double* center = p.centers + k * d;
      float* rounded = p.snapshot + k * d;
      for (int64_t f = 0; f < d; ++f) rounded[f] = static_cast<float>(center[f]);
      farthest = std::max(farthest, squared_distance(rounded, ElementType::float32, center, d));
    }
    most.raise(farthest);
  });
  return most.value() > 0 ? rounded_up(std::sqrt(most.value()) * (1 + kOutwards)) : 0.0f;
}

void kmeans_drift(const KmeansDriftParams& p) {
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  const int64_t d = p.n_features;
  const auto squared_distance = assign_kernels(CodeType::float32).squared_distance;
  const int n_threads = worthwhile_threads(p.n_threads, p.n_epochs * p.n_clusters * d);
  for_ranges(n_threads, p.n_clusters, [&](int64_t first, int64_t last, int) {
    const DefaultFloatEnvironment environment;
    for (int64_t k = first; k < last; ++k) measure_drift(p, squared_distance, k);
  });
  for_ranges(n_threads, p.n_epochs, [&](int64_t first, int64_t last, int) {
    for (int64_t e = first; e < last; ++e) name_farthest_of(p, e);
  });
}

void kmeans_reassign(const KmeansReassignParams& p) {
  if (p.n_rows == 0) return;
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  KTFAST_CHECK(
      p.workspace_size >= kmeans_assign_workspace_size(p.n_features, p.n_coordinates, p.n_threads),
      "workspace is smaller than kmeans_assign_workspace_size()");
  check_rows(p);
  const AssignKernels kernels = assign_kernels(CodeType::float32);
  const int64_t stride = BlockLayout(p.n_features, p.n_coordinates).size;
  const int64_t n_tasks = (p.n_rows + kTaskRows - 1) / kTaskRows;
  std::atomic<int64_t> n_pairs{0};
  for_ranges(p.n_threads, n_tasks, [&](int64_t first, int64_t last, int thread) {
    const DefaultFloatEnvironment environment;
    Rows rows(p, kernels, aligned(p.workspace) + thread * stride);
    const int64_t end = std::min(last * kTaskRows, p.n_rows);
    for (int64_t row = first * kTaskRows; row < end; ++row) rows.reassign(row);
    n_pairs += rows.n_pairs;
  });
  *p.n_pairs += n_pairs;
}

}  // namespace ktfast::cpu
