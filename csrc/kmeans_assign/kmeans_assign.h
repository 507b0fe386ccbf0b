// Contract of kmeans_assign: the nearest centre of every row, and the squared distance to it.
//
// The answer is exact: the label minimises the float64 distance of assign_math.h, ties to the
// lowest index. A product of low precision screens the centres, a proven error bound says which of
// them it cannot tell from the nearest, and only those are compared exactly. So labels and
// distances are the same bits for every precision, SIMD level, thread count, split of the rows, and
// on the GPU.
#pragma once

#include <cstdint>

#include "common/element.h"

struct CUstream_st;

namespace ktfast {

// What the screen multiplies: shifted features as they are, rounded to bfloat16, or to 8 bits with
// a scale per row.
enum class CodeType : int { float32 = 0, bfloat16 = 1, int8 = 2 };

// An orthonormal basis of a subspace, on which only the coordinates are coded; what lies outside is
// bounded by its length. CPU only.
struct KmeansBasis {
  int64_t n_coordinates;  // 0: no basis, the features themselves are coded
  const float* vectors;   // [n_coordinates / 64 rounded up, 4, n_features, 16], zero padded
  float error;            // spectral norm of vectors^T vectors - 1, at most
};

// The centres in the form the product reads: made once, used for any number of rows.
struct KmeansPrepareParams {
  int64_t n_clusters;
  int64_t n_features;
  const double* centers;  // [n_clusters, n_features]
  float* prepared;        // [kmeans_prepared_size()]
  // CPU only:
  CodeType code;
  const float* mean;  // [n_features], subtracted from rows and centres; near the rows' mean is best
  KmeansBasis basis;
  int n_threads;
};

// Codes of rows that are screened many times. CPU only.
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
constexpr int64_t kRowConstants = 7;

// What is known of a row's other centres, so that kmeans_reassign can leave most of them out. CPU
// only.
constexpr int kNearCenters = 16;
struct KmeansBounds {
  int32_t* near;       // [n_rows, kNearCenters] the centres that were nearest, -1: none
  float* near_bounds;  // [n_rows, kNearCenters] lower bounds of the distances to them
  float* rest_bound;   // [n_rows] lower bound of the distance to every other centre
  uint8_t* epoch;      // [n_rows] which snapshot of the centres these are of
  uint16_t* spent;     // [n_rows] pairs computed since then
};

struct KmeansAssignParams {
  int64_t n_rows;
  int64_t n_clusters;
  int64_t n_features;
  const void* x;  // [n_rows, n_features] of x_type
  ElementType x_type;
  const double* centers;  // [n_clusters, n_features]
  const float* prepared;  // of these centers, by the same backend
  int32_t* labels;        // [n_rows]
  double* distances;      // [n_rows]; squared Euclidean distance to the winner
  // CPU only:
  CodeType code;  // the centers' code
  int64_t n_coordinates;
  const int8_t* codes;     // of kmeans_encode, or nullptr: coded here; required with a basis
  const float* constants;  // of kmeans_encode
  const int64_t* subset;   // [n_subset] the rows to assign, or nullptr: all
  int64_t n_subset;
  bool guessed;            // labels hold centres that are probably near
  KmeansBounds bounds;     // written for the rows assigned; near == nullptr: not wanted
  uint8_t epoch;           // to write to bounds.epoch
  float margin;            // centres within (1 + margin) x squared distance should be listed
  float* workspace;        // [workspace_size]
  int64_t workspace_size;  // kmeans_assign_workspace_size() at least
  int64_t* n_passed;       // centres that passed the screen and were scored, added up
  int n_threads;
};

namespace cpu {
// Lengths in floats.
int64_t kmeans_prepared_size(int64_t n_clusters, int64_t n_features, int64_t n_coordinates,
                             CodeType code);
int64_t kmeans_assign_workspace_size(int64_t n_features, int64_t n_coordinates, int n_threads);
// Of one row.
int64_t kmeans_code_bytes(int64_t n_features, int64_t n_coordinates, CodeType code);

// Whether this processor multiplies such codes fast.
bool kmeans_has_fast(CodeType code);

// Whether there are so few centres that kmeans_assign compares all of them, in float32, without a
// screen.
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
