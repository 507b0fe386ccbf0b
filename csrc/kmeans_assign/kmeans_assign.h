// Contract of kmeans_assign: the nearest centre of every row, and the squared distance to it.
//
// The answer is exact: the label minimises the float64 distance of assign_math.h, ties to the
// lowest index. A float32 product screens the centres, a proven error bound says which of them it
// cannot tell apart, and only those are compared in float64. So labels and distances are the same
// bits at every SIMD level, thread count, split of the rows, and on the GPU.
#pragma once

#include <cstdint>

#include "common/element.h"

struct CUstream_st;

namespace ktfast {

// The centres in the form the product reads: made once, used for any number of rows.
struct KmeansPrepareParams {
  int64_t n_clusters;
  int64_t n_features;
  const double* centers;  // [n_clusters, n_features]
  float* prepared;        // [kmeans_prepared_size()]
  int n_threads;          // CPU only
};

struct KmeansAssignParams {
  int64_t n_rows;
  int64_t n_clusters;
  int64_t n_features;
  const void* x;  // [n_rows, n_features] of x_type
  ElementType x_type;
  const double* centers;   // [n_clusters, n_features]
  const float* prepared;   // of these centers, by the same backend
  float* workspace;        // [workspace_size]; CPU only
  int64_t workspace_size;  // kmeans_assign_workspace_size() at least
  int32_t* labels;         // [n_rows]
  double* distances;       // [n_rows]; squared Euclidean distance to the winner
  int n_threads;           // CPU only
};

namespace cpu {
// Lengths in floats.
int64_t kmeans_prepared_size(int64_t n_clusters, int64_t n_features);
int64_t kmeans_assign_workspace_size(int64_t n_features, int n_threads);

void kmeans_prepare(const KmeansPrepareParams& p);
void kmeans_assign(const KmeansAssignParams& p);
}  // namespace cpu
namespace cuda {
int64_t kmeans_prepared_size(int64_t n_clusters, int64_t n_features);

void kmeans_prepare(const KmeansPrepareParams& p, CUstream_st* stream);
void kmeans_assign(const KmeansAssignParams& p, CUstream_st* stream);
}  // namespace cuda

}  // namespace ktfast
