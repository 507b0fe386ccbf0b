// Contract of kmeans_update: per cluster, the sum and the count (or total weight) of its rows.
#pragma once

#include <cstdint>

struct CUstream_st;

namespace ktfast {

struct KmeansUpdateParams {
  int64_t n_rows;
  int64_t n_clusters;
  int64_t n_features;
  const float* x;               // [n_rows, n_features]
  const int32_t* labels;        // [n_rows], each in 0..n_clusters-1
  const double* sample_weight;  // [n_rows], or nullptr: all 1
  double* sums;                 // [n_clusters, n_features]
  double* counts;               // [n_clusters]
  int n_threads;                // CPU only
};

namespace cpu {
void kmeans_update(const KmeansUpdateParams& p);
}
namespace cuda {
void kmeans_update(const KmeansUpdateParams& p, CUstream_st* stream);
}

}  // namespace ktfast
