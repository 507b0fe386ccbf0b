// Contract of kmeans_tensor: kmeans_assign on a GPU's tensor cores. The answer is the same.
//
// Rows and centres are shifted by a vector near their mean and rounded to codes of 8 or 16 bits.
// Products of codes screen the centres, an error bound says which of them may be the nearest, and
// these are compared in float64.
#pragma once

#include <cstdint>

#include "common/element.h"

struct CUstream_st;

namespace ktfast {

// int8 with a scale per row and per tile of centres, or float16 with a power of two for scale.
enum class TensorCode : int { int8 = 0, float16 = 1 };

struct KmeansTensorPrepareParams {
  int64_t n_clusters;
  int64_t n_features;
  TensorCode code;
  const double* centers;  // [n_clusters, n_features]
  const float* mean;      // [n_features]
  int8_t* prepared;       // [kmeans_tensor_prepared_size()], 16-byte aligned like all codes
};

struct KmeansTensorEncodeParams {
  int64_t n_rows;
  int64_t n_features;
  const void* x;  // [n_rows, n_features] of x_type
  ElementType x_type;
  TensorCode code;
  const float* mean;  // [n_features]
  int8_t* codes;      // [n_rows / 128 rounded up, kmeans_tensor_tile_bytes()]
  float* constants;   // [n_rows, kTensorConstants]
};
constexpr int64_t kTensorConstants = 4;

struct KmeansTensorAssignParams {
  int64_t n_rows;
  int64_t n_clusters;
  int64_t n_features;
  const void* x;  // [n_rows, n_features] of x_type
  ElementType x_type;
  const double* centers;   // [n_clusters, n_features]
  TensorCode code;         // of the rows and of the centres
  const int8_t* prepared;  // of these centers
  const int8_t* codes;     // of these rows
  const float* constants;  // likewise
  int32_t* labels;         // [n_rows]
  double* distances;       // [n_rows]; squared Euclidean distance to the winner
  bool guessed;            // labels hold centres that are probably near; any number may stand there
  bool certify;            // else the label is the least score's, and the distance comes from it
  int64_t* workspace;      // [kmeans_tensor_workspace_size()]
  int64_t* n_passed;       // [1] compared exactly, added up over the rows, or nullptr
};

namespace cuda {
// The longest vectors whose int8 products cannot overflow.
constexpr int64_t kMostTensorFeatures = 131072;

int64_t kmeans_tensor_prepared_size(int64_t n_clusters, int64_t n_features, TensorCode code);
int64_t kmeans_tensor_tile_bytes(int64_t n_features, TensorCode code);
int64_t kmeans_tensor_workspace_size(int64_t n_rows);

void kmeans_tensor_prepare(const KmeansTensorPrepareParams& p, CUstream_st* stream);
void kmeans_tensor_encode(const KmeansTensorEncodeParams& p, CUstream_st* stream);
void kmeans_tensor_assign(const KmeansTensorAssignParams& p, CUstream_st* stream);
}  // namespace cuda

}  // namespace ktfast
