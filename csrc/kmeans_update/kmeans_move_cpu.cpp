// Cluster sums as integers, which follow the rows that change their cluster.
#include <algorithm>

#include "common/check.h"
#include "common/float_environment.h"
#include "kmeans_update/kmeans_update.h"
#include "kmeans_update/sum_math.h"

namespace ktfast::cpu {
namespace {

constexpr int64_t kTaskFeatures = 256;
constexpr int64_t kTaskRows = 4096;

// Counting sort of departures and arrivals by cluster. A row stands as 2 row, or 2 row + 1 where it
// leaves. Keeps the clusters' counts.
void sort_by_cluster(const KmeansMoveParams& p, int64_t* starts, int64_t* order) {
  std::fill_n(starts, p.n_clusters + 2, 0);
  const auto each = [&](auto visit) {
    for (int64_t row = 0; row < p.n_rows; ++row) {
      if (p.before == nullptr) {
        visit(p.after[row], 2 * row);
      } else if (p.before[row] != p.after[row]) {
        visit(p.after[row], 2 * row);
        visit(p.before[row], 2 * row + 1);
      }
    }
  };
  each([&](int32_t cluster, int64_t) {
    KTFAST_CHECK(cluster >= 0 && cluster < p.n_clusters,
                 "labels must lie between 0 and n_clusters - 1");
    ++starts[cluster + 2];
  });
  for (int64_t k = 2; k <= p.n_clusters + 1; ++k) starts[k] += starts[k - 1];
  each([&](int32_t cluster, int64_t entry) {
    order[starts[cluster + 1]++] = entry;
    p.counts[cluster] += entry % 2 == 0 ? 1 : -1;
  });
}

// Adds up the lanes, whose number is a power of two, as a tree; changes them.
template <int kLanes>
double tree_sum(double (&lanes)[kLanes]) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

template <class T>
void add_rows(const KmeansMoveParams& p, const int64_t* first, const int64_t* last, int64_t start,
              int64_t length, int64_t* __restrict__ sums) {
  const double* scale = p.scale + start;
  for (const int64_t* entry = first; entry != last; ++entry) {
    const T* values = static_cast<const T*>(p.x) + *entry / 2 * p.n_features + start;
    if (*entry % 2 == 0) {
      for (int64_t f = 0; f < length; ++f) sums[f] += fixed_point(to_double(values[f]), scale[f]);
    } else {
      for (int64_t f = 0; f < length; ++f) sums[f] -= fixed_point(to_double(values[f]), scale[f]);
    }
  }
}

}  // namespace

int64_t kmeans_move_workspace_size(int64_t n_rows, int64_t n_clusters) {
  return n_clusters + 2 + 2 * n_rows;
}

void kmeans_move(const KmeansMoveParams& p) {
  if (p.n_rows == 0) return;
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  int64_t* starts = p.workspace;
  int64_t* order = starts + p.n_clusters + 2;
  sort_by_cluster(p, starts, order);
  const int64_t slices = (p.n_features + kTaskFeatures - 1) / kTaskFeatures;
  with_element(p.x_type, [&](auto* type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
#pragma omp parallel num_threads(p.n_threads)
    {
      const DefaultFloatEnvironment environment;
      // One by one over the threads, because clusters differ in size.
#pragma omp for schedule(static, 1)
      for (int64_t task = 0; task < p.n_clusters * slices; ++task) {
        const int64_t k = task / slices;
        const int64_t start = task % slices * kTaskFeatures;
        add_rows<T>(p, order + starts[k], order + starts[k + 1], start,
                    std::min(kTaskFeatures, p.n_features - start),
                    p.sums + k * p.n_features + start);
      }
    }
  });
}

void kmeans_ranges(const KmeansRangeParams& p) {
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  const int64_t slices = (p.n_features + kTaskFeatures - 1) / kTaskFeatures;
  const int64_t n_tasks = (p.n_rows + kTaskRows - 1) / kTaskRows * slices;
  with_element(p.x_type, [&](auto* type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
#pragma omp parallel for schedule(static) num_threads(p.n_threads)
    for (int64_t task = 0; task < n_tasks; ++task) {
      const DefaultFloatEnvironment environment;
      const int64_t start = task % slices * kTaskFeatures;
      const int64_t length = std::min(kTaskFeatures, p.n_features - start);
      const int64_t first = task / slices * kTaskRows;
      double largest[kTaskFeatures] = {};
      for (int64_t row = first; row < std::min(first + kTaskRows, p.n_rows); ++row) {
        const T* values = static_cast<const T*>(p.x) + row * p.n_features + start;
        for (int64_t f = 0; f < length; ++f) {
          const double size = magnitude(to_double(values[f]));
          largest[f] = size > largest[f] ? size : largest[f];
        }
      }
#pragma omp critical
      for (int64_t f = 0; f < length; ++f) {
        p.largest[start + f] = std::max(p.largest[start + f], largest[f]);
      }
    }
  });
}

void kmeans_means(const KmeansMeansParams& p) {
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
#pragma omp parallel for schedule(static) num_threads(p.n_threads)
  for (int64_t k = 0; k < p.n_clusters; ++k) {
    const DefaultFloatEnvironment environment;
    const int64_t first = k * p.n_features;
    double lanes[kShiftLanes] = {};
    for (int64_t f = 0; f < p.n_features; ++f) {
      const double before = p.previous[first + f];
      const double center = mean_of(p.sums[first + f], p.counts[k], p.step[f], before);
      p.centers[first + f] = center;
      lanes[f % kShiftLanes] += squared_move(center, before);
    }
    p.shifts[k] = tree_sum<kShiftLanes>(lanes);
  }
}

int64_t kmeans_totals_workspace_size(int64_t n_rows) {
  return 2 * ((n_rows + kTotalRows - 1) / kTotalRows);
}

void kmeans_totals(const KmeansTotalsParams& p) {
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  const int64_t n_parts = (p.n_rows + kTotalRows - 1) / kTotalRows;
#pragma omp parallel for schedule(static) num_threads(p.n_threads)
  for (int64_t part = 0; part < n_parts; ++part) {
    const DefaultFloatEnvironment environment;
    double lanes[kTotalLanes] = {};
    int64_t moved = 0;
    const int64_t first = part * kTotalRows;
    for (int64_t row = first; row < std::min(first + kTotalRows, p.n_rows); ++row) {
      const double weight = p.sample_weight == nullptr ? 1.0 : p.sample_weight[row];
      lanes[row % kTotalLanes] += weight * p.distances[row];
      if (p.before != nullptr) moved += p.before[row] != p.after[row];
    }
    p.workspace[part] = tree_sum<kTotalLanes>(lanes);
    p.workspace[n_parts + part] = static_cast<double>(moved);
  }
  const DefaultFloatEnvironment environment;
  for (int i = 0; i < 2; ++i) {
    double lanes[kTotalLanes] = {};
    for (int64_t part = 0; part < n_parts; ++part) {
      lanes[part % kTotalLanes] += p.workspace[i * n_parts + part];
    }
    p.totals[i] = tree_sum<kTotalLanes>(lanes);
  }
}

}  // namespace ktfast::cpu
