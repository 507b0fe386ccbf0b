#include <algorithm>

#include "common/check.h"
#include "kmeans_update/kmeans_update.h"

namespace ktfast::cpu {

// Each thread owns a range of features and adds the rows in their order, so the sums do not depend
// on the number of threads.
void kmeans_update(const KmeansUpdateParams& p) {
  std::fill_n(p.sums, p.n_clusters * p.n_features, 0.0);
  std::fill_n(p.counts, p.n_clusters, 0.0);
  for (int64_t row = 0; row < p.n_rows; ++row) {
    KTFAST_CHECK(p.labels[row] >= 0 && p.labels[row] < p.n_clusters,
                 "labels must lie between 0 and n_clusters - 1");
    p.counts[p.labels[row]] += p.sample_weight ? p.sample_weight[row] : 1.0;
  }
#pragma omp parallel for schedule(static) num_threads(p.n_threads)
  for (int64_t feature = 0; feature < p.n_features; ++feature) {
    for (int64_t row = 0; row < p.n_rows; ++row) {
      const double weight = p.sample_weight ? p.sample_weight[row] : 1.0;
      p.sums[p.labels[row] * p.n_features + feature] +=
          weight * static_cast<double>(p.x[row * p.n_features + feature]);
    }
  }
}

}  // namespace ktfast::cpu
