// Contract of kmeans_update: per cluster, the sum and the count (or total weight) of its rows.
//
// Every sum is added up in float64 in the order of the rows, so it has the same bits for any number
// of threads, any split of the rows over calls, and on the GPU.
#pragma once

#include <cstdint>

#include "common/element.h"

struct CUstream_st;

namespace ktfast {

struct KmeansUpdateParams {
  int64_t n_rows;
  int64_t n_clusters;
  int64_t n_features;
  const void* x;  // [n_rows, n_features] of x_type
  ElementType x_type;
  const int32_t* labels;  // [n_rows]; on the CPU checked, on the GPU rows out of range are skipped
  const double* sample_weight;  // [n_rows], or nullptr: all 1
  int64_t* workspace;           // [kmeans_update_workspace_size()]
  double* sums;                 // [n_clusters, n_features], added to
  double* counts;               // [n_clusters], added to
  int n_threads;                // CPU only
};

namespace cpu {
// Length in int64.
int64_t kmeans_update_workspace_size(int64_t n_rows, int64_t n_clusters);

void kmeans_update(const KmeansUpdateParams& p);
}  // namespace cpu
namespace cuda {
int64_t kmeans_update_workspace_size(int64_t n_rows, int64_t n_clusters);

void kmeans_update(const KmeansUpdateParams& p, CUstream_st* stream);
}  // namespace cuda

}  // namespace ktfast
