// Cluster sums as integers, which follow the rows that change their cluster.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/check.h"
#include "common/float_environment.h"
#include "kmeans_update/kmeans_update.h"

namespace ktfast::cpu {
namespace {

constexpr int64_t kTaskFeatures = 256;
constexpr int64_t kTaskRows = 4096;
// Rows that move are few and far between: the processor does not foresee them.
constexpr int64_t kRowsAhead = 16;
constexpr int64_t kPrefetchBytes = 512;
constexpr int64_t kLineBytes = 64;

// Counting sort of departures and arrivals by cluster. A row stands as 2 row, or 2 row + 1 where it
// leaves.
void sort_by_cluster(const KmeansMoveParams& p, int64_t* starts, int64_t* order) {
  std::fill_n(starts, p.n_clusters + 2, 0);
  const auto each = [&](auto visit) {
    for (int64_t i = 0; i < p.n_moved; ++i) {
      visit(p.to[i], 2 * p.rows[i]);
      if (p.from != nullptr) visit(p.from[i], 2 * p.rows[i] + 1);
    }
  };
  each([&](int32_t cluster, int64_t) {
    KTFAST_CHECK(cluster >= 0 && cluster < p.n_clusters,
                 "labels must lie between 0 and n_clusters - 1");
    ++starts[cluster + 2];
  });
  for (int64_t k = 2; k <= p.n_clusters + 1; ++k) starts[k] += starts[k - 1];
  each([&](int32_t cluster, int64_t entry) { order[starts[cluster + 1]++] = entry; });
}

// x scale rounded to an integer, by way of the bits of a double whose last one counts ones.
int64_t fixed_point(double value, double scale) {
  constexpr double kOnes = 6755399441055744.0;  // 1.5 x 2^52
  const double rounded = value * scale + kOnes;
  int64_t bits;
  std::memcpy(&bits, &rounded, sizeof bits);
  int64_t zero;
  std::memcpy(&zero, &kOnes, sizeof zero);
  return bits - zero;
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

// Rows first .. last - 1 leave the clusters they were in and join others.
template <class T>
void follow_rows(const KmeansFollowParams& p, int64_t first, int64_t last, int64_t* sums,
                 int64_t* counts) {
  const int64_t d = p.n_features;
  const double* scale = p.scale;
  const int64_t row_bytes = std::min(d * static_cast<int64_t>(sizeof(T)), kPrefetchBytes);
  for (int64_t row = first; row < last; ++row) {
    const int64_t ahead = row + kRowsAhead;
    if (ahead < last && p.before[ahead] != p.labels[ahead]) {
      const char* next = reinterpret_cast<const char*>(static_cast<const T*>(p.x) + ahead * d);
      for (int64_t i = 0; i < row_bytes; i += kLineBytes) __builtin_prefetch(next + i);
    }
    const int32_t from = p.before[row], to = p.labels[row];
    if (from == to) continue;
    const T* values = static_cast<const T*>(p.x) + row * d;
    int64_t* __restrict__ joined = sums + to * d;
    if (from < 0) {
      for (int64_t f = 0; f < d; ++f) joined[f] += fixed_point(to_double(values[f]), scale[f]);
    } else {
      int64_t* __restrict__ left = sums + from * d;
      for (int64_t f = 0; f < d; ++f) {
        const int64_t value = fixed_point(to_double(values[f]), scale[f]);
        joined[f] += value;
        left[f] -= value;
      }
      --counts[from];
    }
    ++counts[to];
    p.before[row] = to;
  }
}

}  // namespace

int64_t kmeans_follow_workspace_size(int64_t n_clusters, int64_t n_features, int n_threads) {
  return n_threads * n_clusters * (n_features + 1);
}

void kmeans_follow(const KmeansFollowParams& p) {
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  for (int64_t row = 0; row < p.n_rows; ++row) {
    KTFAST_CHECK(p.labels[row] >= 0 && p.labels[row] < p.n_clusters && p.before[row] >= -1 &&
                     p.before[row] < p.n_clusters,
                 "labels must lie between 0 and n_clusters - 1");
  }
  const int64_t n_sums = p.n_clusters * p.n_features;
  const int64_t stride = n_sums + p.n_clusters;
  const int64_t share = (p.n_rows + p.n_threads - 1) / p.n_threads;
  with_element(p.x_type, [&](auto* type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
#pragma omp parallel for schedule(static) num_threads(p.n_threads)
    for (int64_t part = 0; part < p.n_threads; ++part) {
      const DefaultFloatEnvironment environment;
      int64_t* sums = p.workspace + part * stride;
      std::fill_n(sums, stride, 0);
      follow_rows<T>(p, std::min(part * share, p.n_rows), std::min((part + 1) * share, p.n_rows),
                     sums, sums + n_sums);
    }
  });
  for (int64_t part = 0; part < p.n_threads; ++part) {
    const int64_t* sums = p.workspace + part * stride;
    for (int64_t i = 0; i < n_sums; ++i) p.sums[i] += sums[i];
    for (int64_t k = 0; k < p.n_clusters; ++k) p.counts[k] += sums[n_sums + k];
  }
}

int64_t kmeans_move_workspace_size(int64_t n_moved, int64_t n_clusters) {
  return n_clusters + 2 + 2 * n_moved;
}

void kmeans_move(const KmeansMoveParams& p) {
  if (p.n_moved == 0) return;
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  for (int64_t i = 0; i < p.n_moved; ++i) {
    KTFAST_CHECK(p.rows[i] >= 0 && p.rows[i] < p.n_rows, "rows must lie between 0 and n_rows - 1");
  }
  int64_t* starts = p.workspace;
  int64_t* order = starts + p.n_clusters + 2;
  sort_by_cluster(p, starts, order);
  for (int64_t i = 0; i < p.n_moved; ++i) {
    ++p.counts[p.to[i]];
    if (p.from != nullptr) --p.counts[p.from[i]];
  }
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
          const double size = std::fabs(to_double(values[f]));
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
    const double count = static_cast<double>(p.counts[k]);
    double shift = 0;
    for (int64_t f = 0; f < p.n_features; ++f) {
      const double before = p.previous[first + f];
      double center = before;
      if (p.counts[k] > 0) {
        const double sum = static_cast<double>(p.sums[first + f]) * p.step[f];
        center = static_cast<double>(static_cast<float>(sum / count));
      }
      p.centers[first + f] = center;
      shift += (center - before) * (center - before);
    }
    p.shifts[k] = shift;
  }
}

}  // namespace ktfast::cpu
