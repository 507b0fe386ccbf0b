// Contract of kmeans_assign: the nearest centre of every row, and the squared distance to it.
#pragma once

#include <cstdint>

struct CUstream_st;

namespace ktfast {

struct KmeansAssignParams {
  int64_t n_rows;
  int64_t n_clusters;
  int64_t n_features;
  const float* x;        // [n_rows, n_features]
  const float* centers;  // [n_clusters, n_features]
  int32_t* labels;       // [n_rows]; ties go to the lowest index
  float* distances;      // [n_rows]; squared Euclidean distance to the winner
  int n_threads;         // CPU only
};

namespace cpu {
void kmeans_assign(const KmeansAssignParams& p);
}
namespace cuda {
void kmeans_assign(const KmeansAssignParams& p, CUstream_st* stream);
}

}  // namespace ktfast
