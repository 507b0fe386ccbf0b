#include "common/check.h"
#include "kmeans_assign/kmeans_assign.h"

namespace ktfast::cpu {
namespace {

double squared_distance(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += difference * difference;
  }
  return sum;
}

}  // namespace

void kmeans_assign(const KmeansAssignParams& p) {
  if (p.n_rows == 0) return;
  KTFAST_CHECK(p.n_clusters > 0, "centers must hold at least one row");
#pragma omp parallel for schedule(static) num_threads(p.n_threads)
  for (int64_t row = 0; row < p.n_rows; ++row) {
    const float* x = p.x + row * p.n_features;
    int32_t nearest = 0;
    double least = squared_distance(x, p.centers, p.n_features);
    for (int64_t k = 1; k < p.n_clusters; ++k) {
      const double distance = squared_distance(x, p.centers + k * p.n_features, p.n_features);
      if (distance < least) {
        least = distance;
        nearest = static_cast<int32_t>(k);
      }
    }
    p.labels[row] = nearest;
    p.distances[row] = static_cast<float>(least);
  }
}

}  // namespace ktfast::cpu
