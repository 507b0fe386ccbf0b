#include "kmeans_assign/kmeans_assign.h"

#include <algorithm>

#include "common/float_environment.h"
#include "kmeans_assign/cpu/kernels.h"

namespace ktfast::cpu {
namespace {

// A tile of centres of this many elements stays in the L1 cache while all rows are compared with
// it.
constexpr int64_t kTileElements = 1 << 11;

}  // namespace

void kmeans_distances(const KmeansDistancesParams& p) {
  const DefaultFloatEnvironment environment;
  const auto squared_distance = assign_kernels(CodeType::float32).squared_distance;
  const int64_t row_bytes = p.n_features * element_size(p.x_type);
  const int64_t tile = std::max<int64_t>(1, kTileElements / std::max<int64_t>(1, p.n_features));
  for (int64_t first = 0; first < p.n_clusters; first += tile) {
    const int64_t end = std::min(first + tile, p.n_clusters);
    for (int64_t r = 0; r < p.n_rows; ++r) {
      const char* row = static_cast<const char*>(p.x) + r * row_bytes;
      for (int64_t k = first; k < end; ++k) {
        p.distances[r * p.n_clusters + k] =
            squared_distance(row, p.x_type, p.centers + k * p.n_features, p.n_features);
      }
    }
  }
}

}  // namespace ktfast::cpu
