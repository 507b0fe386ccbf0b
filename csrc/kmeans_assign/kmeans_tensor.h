// Contract of kmeans_tensor: kmeans_assign on a GPU's tensor cores, with the same labels and
// distances.
//
// A vector near the mean of the rows is subtracted from rows and centres. The differences are
// rounded to codes of 8 or 16 bits. Products of codes and an error bound exclude most centres. The
// remaining candidates are compared in float64.
#pragma once

#include <cstdint>

#include "common/element.h"

struct CUstream_st;

namespace ktfast {

// int8 and float16, both with a scale per row and per tile of centres. The scale of float16 is a
// power of two.
enum class TensorCode : int { int8 = 0, float16 = 1 };

// Which instructions multiply the codes. `fastest` is wgmma on compute capability 9.0 and mma.sync
// elsewhere. Tests use `mma` to run the path of other GPUs on a GPU of capability 9.0.
enum class ProductPath : int { fastest = 0, mma = 1 };

struct KmeansTensorPrepareParams {
  int64_t n_clusters;
  int64_t n_features;
  TensorCode code;
  const double* centers;  // [n_clusters, n_features]
  const float* mean;      // [n_features]
  int8_t* prepared;       // [kmeans_tensor_prepared_size()], aligned to 16 bytes like all codes
};

struct KmeansTensorEncodeParams {
  int64_t n_rows;
  int64_t n_features;
  const void* x;  // [n_rows, n_features] of x_type
  ElementType x_type;
  TensorCode code;
  const float* mean;  // [n_features]
  int8_t* codes;      // [n_rows / kTensorTileRows rounded up, kmeans_tensor_tile_bytes()]
  float* constants;   // [n_rows, kTensorConstants]
};
constexpr int64_t kTensorConstants = 4;
// Rows of a tile of codes.
constexpr int kTensorTileRows = 128;
// With longer vectors the sum of int8 products could overflow.
constexpr int64_t kMostTensorFeatures = 131072;

struct KmeansTensorAssignParams {
  int64_t n_rows;
  int64_t n_clusters;
  int64_t n_features;
  const void* x;  // [n_rows, n_features] of x_type
  ElementType x_type;
  const double* centers;   // [n_clusters, n_features]
  TensorCode code;         // of the rows and of the centres
  const int8_t* prepared;  // kmeans_tensor_prepare's output for these centers
  const int8_t* codes;     // kmeans_tensor_encode's output for these rows
  const float* constants;  // kmeans_tensor_encode's output for these rows
  int32_t* labels;         // [n_rows]
  double* distances;       // [n_rows]; squared Euclidean distance to the winner
  bool guessed;  // labels hold centres that are probably near; invalid numbers are ignored
  bool certify;  // false: the least score decides, and the distance is computed from it
  // With `bounds`, a row with one candidate costs no exact distance: `distances` become upper
  // bounds of the squared distances. With guesses, `distances` already hold such bounds, or
  // distances, for centres that have moved by at most `moves` since. Needs `certify`.
  bool bounds;
  const double* moves;  // [n_clusters + 1]; nullptr without bounds or guesses
  // [n_rows] lower bounds of the distances between each row and every centre but its label;
  // negative: nothing is known. With guesses, the call reads the bounds of the last call. A row
  // keeps its label if the bounds exclude all other centres, and a tile of such rows costs no
  // product. The call writes the bounds for the present centres. Needs `bounds`; nullptr: no row
  // is skipped.
  double* others;
  ProductPath path;
  int64_t* workspace;  // [kmeans_tensor_workspace_size()]
  int64_t* n_passed;   // [1] the number of exact comparisons is added; nullptr: not counted
  // [1] with `others`, the number of row tiles that are multiplied is added; nullptr: not counted
  int64_t* n_multiplied;
};

// Computes upper bounds of the distances between former and present centres, and the largest one.
struct KmeansTensorMovesParams {
  int64_t n_clusters;
  int64_t n_features;
  const double* centers;   // [n_clusters, n_features]
  const double* previous;  // [n_clusters, n_features]
  double* moves;           // [n_clusters + 1]; the last one is the largest
};

// Computes the exact squared distance between every row and the centre of its label.
struct KmeansTensorDistancesParams {
  int64_t n_rows;
  int64_t n_clusters;
  int64_t n_features;
  const void* x;  // [n_rows, n_features] of x_type
  ElementType x_type;
  const double* centers;  // [n_clusters, n_features]
  const int32_t* labels;  // [n_rows], in 0 .. n_clusters - 1; nullptr: all 0
  double* distances;      // [n_rows]
};

namespace cuda {
int64_t kmeans_tensor_prepared_size(int64_t n_clusters, int64_t n_features, TensorCode code);
int64_t kmeans_tensor_tile_bytes(int64_t n_features, TensorCode code);
int64_t kmeans_tensor_workspace_size(int64_t n_rows);

void kmeans_tensor_prepare(const KmeansTensorPrepareParams& p, CUstream_st* stream);
void kmeans_tensor_encode(const KmeansTensorEncodeParams& p, CUstream_st* stream);
void kmeans_tensor_assign(const KmeansTensorAssignParams& p, CUstream_st* stream);
void kmeans_tensor_moves(const KmeansTensorMovesParams& p, CUstream_st* stream);
void kmeans_tensor_distances(const KmeansTensorDistancesParams& p, CUstream_st* stream);
}  // namespace cuda

}  // namespace ktfast
