#include "kmeans_update/kmeans_update.h"

#include <algorithm>

#include "common/check.h"
#include "common/float_environment.h"
#include "common/parallel.h"
#include "common/size.h"
#include "kmeans_update/cpu/sum_kernels.h"

namespace ktfast::cpu {
namespace {

// A stable counting sort: the rows of cluster k are order[starts[k]] .. order[starts[k + 1] - 1].
void sort_by_label(const KmeansUpdateParams& p, int64_t* starts, int64_t* order) {
  std::fill_n(starts, p.n_clusters + 2, 0);
  for (int64_t row = 0; row < p.n_rows; ++row) {
    const int32_t label = p.labels[row];
    KTFAST_CHECK(label >= 0 && label < p.n_clusters,
                 "labels must lie between 0 and n_clusters - 1");
    ++starts[label + 2];
  }
  for (int64_t k = 2; k <= p.n_clusters + 1; ++k) starts[k] += starts[k - 1];
  // starts[k + 1] is the position of the next row of cluster k. At the end it is the start of
  // cluster k + 1.
  for (int64_t row = 0; row < p.n_rows; ++row) order[starts[p.labels[row] + 1]++] = row;
}

}  // namespace

int64_t kmeans_update_workspace_size(int64_t n_rows, int64_t n_clusters) {
  return (Size(n_clusters) + 2 + n_rows).value();
}

void kmeans_update(const KmeansUpdateParams& p) {
  if (p.n_rows == 0) return;
  KTFAST_CHECK(p.n_threads > 0, "n_threads must be at least 1");
  KTFAST_CHECK(p.n_clusters > 0, "sums must hold at least one row");
  int64_t* starts = p.workspace;
  int64_t* order = starts + p.n_clusters + 2;
  sort_by_label(p, starts, order);
  {
    const DefaultFloatEnvironment environment;
    for (int64_t row = 0; row < p.n_rows; ++row) {
      p.counts[p.labels[row]] += p.sample_weight == nullptr ? 1.0 : p.sample_weight[row];
    }
  }
  const int64_t slices = (p.n_features + kTaskFeatures - 1) / kTaskFeatures;
  const SumKernels kernels = sum_kernels();
  const int n_threads = worthwhile_threads(p.n_threads, p.n_rows * p.n_features);
  for_ranges(n_threads, p.n_clusters * slices, [&](int64_t first, int64_t last, int) {
    const DefaultFloatEnvironment environment;
    for (int64_t task = first; task < last; ++task) {
      const int64_t k = task / slices;
      const int64_t start = task % slices * kTaskFeatures;
      for (int64_t i = starts[k]; i < starts[k + 1]; ++i) {
        kernels.add_weighted(place(p.x, p.x_type, p.n_features, order[i], start), p.x_type,
                             p.sample_weight == nullptr ? 1.0 : p.sample_weight[order[i]],
                             std::min(kTaskFeatures, p.n_features - start),
                             p.sums + k * p.n_features + start);
      }
    }
  });
}

}  // namespace ktfast::cpu
