// Integer sums of the clusters, updated by the rows that change their cluster.
#include "kmeans_update/kmeans_update.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include "common/check.h"
#include "common/cpu_features.h"
#include "common/float_environment.h"
#include "common/parallel.h"
#include "common/size.h"
#include "kmeans_update/cpu/sum_loops.h"

namespace ktfast::cpu {
namespace {

// kmeans_ranges() reads all features of this many rows before it goes on, so that it reads the rows
// in the order of the memory.
constexpr int64_t kTaskRows = 64;
// If there are at most kFewSums sums, every thread adds to sums of its own, which fit its
// second-level cache. If there are several such threads, each gets at least kThreadRows rows.
constexpr int64_t kFewSums = 1 << 15;
constexpr int64_t kThreadRows = 4096;
// Rows that change their cluster are far apart, so the hardware prefetcher does not fetch them. The
// loop fetches a row this many changed rows ahead.
constexpr int64_t kRowsAhead = 16;
constexpr int64_t kPrefetchBytes = 512;
constexpr int64_t kLineBytes = 64;
// The loop lists the rows that change their cluster, of this many rows at a time.
constexpr int64_t kScannedRows = 4096;

// Sorts the rows that leave and join clusters by cluster, by counting. The entry of a row is 2 row
// if the row joins and 2 row + 1 if it leaves. Also updates the clusters' counts.
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

// With few sums, each thread adds its share of the rows, in their order, to its own sums.
struct Shares {
  int64_t threads, n_sums, stride;  // stride: the length of a thread's sums, low limbs and counts

  explicit Shares(const KmeansMoveParams& p)
      : threads(std::clamp<int64_t>(p.n_rows / kThreadRows, 1, p.n_threads)),
        n_sums((Size(p.n_clusters) * p.n_features).value()),
        stride((Size(n_sums) * (p.low == nullptr ? 1 : 2) + p.n_clusters).value()) {}

  bool fit(const KmeansMoveParams& p) const {
    return n_sums <= kFewSums &&
           (Size(threads) * stride).value() <= kmeans_move_workspace_size(p.n_rows, p.n_clusters);
  }
};

// Calls visit(row, before, after) for each of the rows first .. last - 1 that changes its cluster.
template <class Visit>
void each_change(const KmeansMoveParams& p, int64_t first, int64_t last, Visit visit) {
  const int64_t d = p.n_features;
  const int64_t row_bytes = std::min(d * element_size(p.x_type), kPrefetchBytes);
  int64_t changed[kScannedRows];
  const auto fetch = [&](int64_t row) {
    const char* values = place(p.x, p.x_type, d, row, 0);
    for (int64_t i = 0; i < row_bytes; i += kLineBytes) __builtin_prefetch(values + i);
  };
  for (int64_t start = first; start < last; start += kScannedRows) {
    int64_t n = 0;
    for (int64_t row = start; row < std::min(start + kScannedRows, last); ++row) {
      changed[n] = row;
      n += p.before == nullptr || p.before[row] != p.after[row] ? 1 : 0;
    }
    for (int64_t i = 0; i < std::min(n, kRowsAhead); ++i) fetch(changed[i]);
    for (int64_t i = 0; i < n; ++i) {
      if (i + kRowsAhead < n) fetch(changed[i + kRowsAhead]);
      const int64_t row = changed[i];
      visit(row, p.before == nullptr ? -1 : p.before[row], p.after[row]);
    }
  }
}

// Adds a share of the rows to sums of one limb.
void move_in_order(const KmeansMoveParams& p, int64_t first, int64_t last, int64_t* sums,
                   int64_t* counts) {
  const SumKernels kernels = sum_kernels();
  const int64_t d = p.n_features;
  each_change(p, first, last, [&](int64_t row, int32_t from, int32_t to) {
    kernels.move(place(p.x, p.x_type, d, row, 0), p.x_type, p.scale, d, sums + to * d,
                 from < 0 ? nullptr : sums + from * d);
    ++counts[to];
    if (from >= 0) --counts[from];
  });
}

double weight_of(const KmeansMoveParams& p, int64_t row) {
  return p.sample_weight == nullptr ? 1.0 : p.sample_weight[row];
}

// Adds a share of the rows to sums of two limbs, without a carry.
void move_limbs_in_order(const KmeansMoveParams& p, int64_t first, int64_t last, int64_t* high,
                         int64_t* low, int64_t* counts) {
  const SumKernels kernels = sum_kernels();
  const int64_t d = p.n_features;
  each_change(p, first, last, [&](int64_t row, int32_t from, int32_t to) {
    const auto add = [&](int32_t cluster, double weight) {
      kernels.add_limbs(place(p.x, p.x_type, d, row, 0), p.x_type, weight, p.scale, d,
                        high + cluster * d, low + cluster * d);
    };
    ++counts[to];
    add(to, weight_of(p, row));
    if (from < 0) return;
    --counts[from];
    add(from, -weight_of(p, row));
  });
}

void check_labels(const KmeansMoveParams& p) {
  for (const int32_t* labels : {p.before, p.after}) {
    if (labels == nullptr) continue;
    int32_t least = 0, greatest = 0;
    for (int64_t row = 0; row < p.n_rows; ++row) {
      least = std::min(least, labels[row]);
      greatest = std::max(greatest, labels[row]);
    }
    KTFAST_CHECK(least >= 0 && greatest < p.n_clusters,
                 "labels must lie between 0 and n_clusters - 1");
  }
}

void move_in_shares(const KmeansMoveParams& p, const Shares& shares) {
  check_labels(p);
  const int64_t n_sums = shares.n_sums;
  const int64_t share = (p.n_rows + shares.threads - 1) / shares.threads;
  in_threads(static_cast<int>(shares.threads), [&](int part) {
    const DefaultFloatEnvironment environment;
    int64_t* sums = p.workspace + part * shares.stride;
    int64_t* counts = sums + shares.stride - p.n_clusters;
    std::fill_n(sums, shares.stride, 0);
    const int64_t first = std::min(part * share, p.n_rows);
    const int64_t last = std::min((part + 1) * share, p.n_rows);
    if (p.low != nullptr) return move_limbs_in_order(p, first, last, sums, sums + n_sums, counts);
    move_in_order(p, first, last, sums, counts);
  });
  for (int64_t part = 0; part < shares.threads; ++part) {
    const int64_t* sums = p.workspace + part * shares.stride;
    const int64_t* counts = sums + shares.stride - p.n_clusters;
    for (int64_t i = 0; i < n_sums; ++i) p.sums[i] += sums[i];
    for (int64_t i = 0; p.low != nullptr && i < n_sums; ++i) p.low[i] += sums[n_sums + i];
    for (int64_t k = 0; k < p.n_clusters; ++k) p.counts[k] += counts[k];
  }
  if (p.low != nullptr) sum_kernels().carry(n_sums, p.sums, p.low);
}

// Features start .. start + length - 1 of the sums of cluster k, whose entries are sorted.
void move_cluster(const KmeansMoveParams& p, const SumKernels& kernels, const int64_t* starts,
                  const int64_t* order, int64_t k, int64_t start) {
  const int64_t length = std::min(kTaskFeatures, p.n_features - start);
  const int64_t at = k * p.n_features + start;
  for (int64_t i = starts[k]; i < starts[k + 1]; ++i) {
    const int64_t row = order[i] / 2;
    const bool leaves = order[i] % 2 != 0;
    const char* values = place(p.x, p.x_type, p.n_features, row, start);
    if (p.low == nullptr) {
      kernels.add(values, p.x_type, p.scale + start, length, leaves, p.sums + at);
    } else {
      const double weight = leaves ? -weight_of(p, row) : weight_of(p, row);
      kernels.add_limbs(values, p.x_type, weight, p.scale + start, length, p.sums + at, p.low + at);
    }
  }
  if (p.low != nullptr && starts[k] < starts[k + 1]) {
    kernels.carry(length, p.sums + at, p.low + at);
  }
}

}  // namespace

SumKernels sum_kernels() {
#if defined(KTFAST_X86_SIMD)
  if (simd_level() >= SimdLevel::avx512) return sum_kernels_avx512();
  if (simd_level() >= SimdLevel::avx2) return sum_kernels_avx2();
#endif
  return kSumKernels;
}

int64_t kmeans_move_workspace_size(int64_t n_rows, int64_t n_clusters) {
  return (Size(n_clusters) + 2 + Size(n_rows) * 2).value();
}

void kmeans_move(const KmeansMoveParams& p) {
  if (p.n_rows == 0) return;
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  check_limbs(p);
  const Shares shares(p);
  if (shares.fit(p)) return move_in_shares(p, shares);
  int64_t* starts = p.workspace;
  int64_t* order = starts + p.n_clusters + 2;
  sort_by_cluster(p, starts, order);
  const int64_t slices = (p.n_features + kTaskFeatures - 1) / kTaskFeatures;
  const SumKernels kernels = sum_kernels();
  const int n_threads = worthwhile_threads(p.n_threads, starts[p.n_clusters] * p.n_features);
  for_ranges(n_threads, p.n_clusters * slices, [&](int64_t first, int64_t last, int) {
    const DefaultFloatEnvironment environment;
    for (int64_t task = first; task < last; ++task) {
      move_cluster(p, kernels, starts, order, task / slices, task % slices * kTaskFeatures);
    }
  });
}

void kmeans_ranges(const KmeansRangeParams& p) {
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  const int64_t n_tasks = (p.n_rows + kTaskRows - 1) / kTaskRows;
  const SumKernels kernels = sum_kernels();
  std::mutex writing;
  for_ranges(p.n_threads, n_tasks, [&](int64_t first_task, int64_t last_task, int) {
    const DefaultFloatEnvironment environment;
    std::vector<double> largest(p.n_features);
    for (int64_t task = first_task; task < last_task; ++task) {
      const int64_t first = task * kTaskRows;
      for (int64_t start = 0; start < p.n_features; start += kTaskFeatures) {
        kernels.range(place(p.x, p.x_type, p.n_features, first, start), p.x_type,
                      std::min(kTaskRows, p.n_rows - first), p.n_features,
                      std::min(kTaskFeatures, p.n_features - start), &largest[start]);
      }
    }
    const std::lock_guard<std::mutex> lock(writing);
    for (int64_t f = 0; f < p.n_features; ++f) {
      p.largest[f] = std::max(p.largest[f], largest[f]);
    }
  });
}

void kmeans_means(const KmeansMeansParams& p) {
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  const SumKernels kernels = sum_kernels();
  const int n_threads = worthwhile_threads(p.n_threads, p.n_clusters * p.n_features);
  for_ranges(n_threads, p.n_clusters, [&](int64_t first_k, int64_t last_k, int) {
    const DefaultFloatEnvironment environment;
    for (int64_t k = first_k; k < last_k; ++k) p.shifts[k] = kernels.mean(p, k);
  });
}

int64_t kmeans_totals_workspace_size(int64_t n_rows) {
  return (Size(n_rows).parts(kTotalRows) * 2).value();
}

void kmeans_totals(const KmeansTotalsParams& p) {
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  const int64_t n_parts = (p.n_rows + kTotalRows - 1) / kTotalRows;
  const auto add_part = [&](int64_t part) {
    double lanes[kTotalLanes] = {};
    int64_t moved = 0;
    const int64_t first = part * kTotalRows;
    const int64_t last = std::min(first + kTotalRows, p.n_rows);
    for (int64_t row = first; row < last; row += kTotalLanes) {
      const int64_t width = std::min<int64_t>(kTotalLanes, last - row);
      const double* distances = p.distances + row;
      if (p.sample_weight == nullptr) {
        for (int64_t lane = 0; lane < width; ++lane) lanes[lane] += distances[lane];
      } else {
        const double* weights = p.sample_weight + row;
        for (int64_t lane = 0; lane < width; ++lane) {
          lanes[lane] += weights[lane] * distances[lane];
        }
      }
    }
    for (int64_t row = first; p.before != nullptr && row < last; ++row) {
      moved += p.before[row] != p.after[row];
    }
    p.workspace[part] = tree_sum<kTotalLanes>(lanes);
    p.workspace[n_parts + part] = static_cast<double>(moved);
  };
  const int n_threads = worthwhile_threads(p.n_threads, p.n_rows);
  for_ranges(n_threads, n_parts, [&](int64_t first, int64_t last, int) {
    const DefaultFloatEnvironment environment;
    for (int64_t part = first; part < last; ++part) add_part(part);
  });
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
