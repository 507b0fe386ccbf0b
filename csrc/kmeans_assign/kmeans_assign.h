// Contract of kmeans_assign: the nearest centre of every row, and the squared distance to it.
//
// The answer is exact: the label minimises the float64 distance of certificate.h, and ties go to
// the lowest index. A screen of low precision proves for most centres that they are not the
// nearest. The remaining candidates are compared exactly. So labels and distances have the same
// bits for every precision, SIMD level, thread count and split of the rows, and on the GPU.
// README.md explains the terms and derives the proof.
#pragma once

#include <cstdint>

#include "common/element.h"

struct CUstream_st;

namespace ktfast {

// What the screen multiplies: features less a mean, stored in float32, rounded to bfloat16, or
// rounded to 8 bits with a scale per row.
enum class CodeType : int { float32 = 0, bfloat16 = 1, int8 = 2 };

// An orthonormal basis of a subspace. With a basis the screen codes the coordinates only, and
// bounds the part of a vector outside the subspace by its length. CPU only.
struct KmeansBasis {
  int64_t n_coordinates;  // 0: no basis, the features themselves are coded
  const float* vectors;   // [n_coordinates / 64 rounded up, 4, n_features, 16], zero padded
  float error;            // upper bound of the spectral norm of vectors^T vectors - 1
};

// A place of a vector: its coordinates in an orthonormal basis of few directions, and the length of
// the rest. The distance of two places is at most the distance of the vectors. So a box around the
// places of the centres of a panel tells which rows need no centre of the panel. CPU only.
constexpr int64_t kPlaceNumbers = 9;

// Arranges the centres as the kernels read them. One preparation serves any number of rows.
struct KmeansPrepareParams {
  int64_t n_clusters;
  int64_t n_features;
  const double* centers;  // [n_clusters, n_features]
  float* prepared;        // [kmeans_prepared_size()]
  // CPU only:
  CodeType code;
  const float* mean;  // [n_features], subtracted from rows and centres; best near the rows' mean
  KmeansBasis basis;
  // Optional. The centres in an order in which neighbours are near, and their places less the mean.
  // Panels follow this order, and get boxes.
  const int32_t* order;  // [n_clusters] a permutation, or nullptr
  const float* places;   // [n_clusters, kPlaceNumbers], or nullptr
  int n_threads;
};

// Codes rows that are screened many times. CPU only.
struct KmeansEncodeParams {
  int64_t n_rows;
  int64_t n_features;
  const void* x;  // [n_rows, n_features] of x_type
  ElementType x_type;
  CodeType code;
  const float* mean;  // [n_features]
  KmeansBasis basis;
  float* workspace;  // [kmeans_assign_workspace_size()]
  int64_t workspace_size;
  int8_t* codes;     // [n_rows, kmeans_code_bytes()]
  float* constants;  // [n_rows, kRowConstants]
  int n_threads;
};
constexpr int64_t kRowConstants = 7;  // the numbers of a RowCode

// Lower bounds of a row's distances to the centres, with which kmeans_reassign skips most centres.
// CPU only.
constexpr int kNearCenters = 16;
struct KmeansBounds {
  int32_t* near;       // [n_rows, kNearCenters] the nearest centres, -1: none
  float* near_bounds;  // [n_rows, kNearCenters] lower bounds of the distances to them
  float* rest_bound;   // [n_rows] lower bound of the distance to every other centre
  uint8_t* epoch;      // [n_rows] the snapshot of the centres to which the bounds refer
  uint16_t* spent;     // [n_rows] distances computed since the bounds were written
};

struct KmeansAssignParams {
  int64_t n_rows;
  int64_t n_clusters;
  int64_t n_features;
  const void* x;  // [n_rows, n_features] of x_type
  ElementType x_type;
  const double* centers;  // [n_clusters, n_features]
  const float* prepared;  // kmeans_prepare's output for these centers, of the same backend
  int32_t* labels;        // [n_rows]
  double* distances;      // [n_rows]; squared Euclidean distance to the winner
  // CPU only:
  CodeType code;  // of the prepared centers
  int64_t n_coordinates;
  const int8_t* codes;     // of kmeans_encode; nullptr: rows are coded here; required with a basis
  const float* constants;  // of kmeans_encode
  const int64_t* subset;   // [n_subset] the rows to assign, or nullptr: all
  int64_t n_subset;
  // The rows' places less the mean, or nullptr. Read only if the rows are guessed and the panels
  // have boxes. Rows that follow each other should have guesses that follow each other.
  const float* places;     // [n_rows, kPlaceNumbers]
  bool guessed;            // labels hold centres that are probably near
  KmeansBounds bounds;     // written for the assigned rows; near == nullptr: no bounds are recorded
  uint8_t epoch;           // written to bounds.epoch
  float margin;            // centres up to (1 + margin) x the least squared distance are listed
  float* workspace;        // [workspace_size]
  int64_t workspace_size;  // kmeans_assign_workspace_size() at least
  int64_t* n_passed;       // the number of candidates and of centres compared is added
  int n_threads;
};

// CPU only. kmeans_distances runs in the caller's thread; each thread of the caller passes a block
// of rows.
struct KmeansDistancesParams {
  int64_t n_rows;
  int64_t n_clusters;
  int64_t n_features;
  const void* x;  // [n_rows, n_features] of x_type
  ElementType x_type;
  const double* centers;  // [n_clusters, n_features]
  double* distances;      // [n_rows, n_clusters]; squared Euclidean distances
};

namespace cpu {
// Computes the exact distance (certificate.h) of every row to every centre. So the distance to the
// nearest centre has the bits of kmeans_assign.
void kmeans_distances(const KmeansDistancesParams& p);

// The lengths of `prepared` and `workspace`, in floats.
int64_t kmeans_prepared_size(int64_t n_clusters, int64_t n_features, int64_t n_coordinates,
                             CodeType code);
int64_t kmeans_assign_workspace_size(int64_t n_features, int64_t n_coordinates, int n_threads);
// The length of a row's code in bytes.
int64_t kmeans_code_bytes(int64_t n_features, int64_t n_coordinates, CodeType code);

// Whether this processor has an instruction that multiplies codes of this type.
bool kmeans_has_fast(CodeType code);

// Whether kmeans_assign computes a float32 score of every centre instead of screening, because
// there are few centres.
bool kmeans_is_few(int64_t n_clusters, int64_t n_features);

void kmeans_prepare(const KmeansPrepareParams& p);
void kmeans_encode(const KmeansEncodeParams& p);
void kmeans_assign(const KmeansAssignParams& p);
}  // namespace cpu
namespace cuda {
int64_t kmeans_prepared_size(int64_t n_clusters, int64_t n_features);

void kmeans_prepare(const KmeansPrepareParams& p, CUstream_st* stream);
void kmeans_assign(const KmeansAssignParams& p, CUstream_st* stream);
}  // namespace cuda

}  // namespace ktfast
