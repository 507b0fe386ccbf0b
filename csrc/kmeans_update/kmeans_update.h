// Contract of kmeans_update: computes the sum and the count (or total weight) of each cluster's
// rows.
//
// Each sum adds the rows in float64 in the order of the rows. So the sums have the same bits for
// any number of threads and any split of the rows over calls, and on the GPU.
#pragma once

#include <cstdint>

#include "common/check.h"
#include "common/element.h"
#include "kmeans_update/sum_math.h"

struct CUstream_st;

namespace ktfast {

struct KmeansUpdateParams {
  int64_t n_rows;
  int64_t n_clusters;
  int64_t n_features;
  const void* x;  // [n_rows, n_features] of x_type
  ElementType x_type;
  const int32_t* labels;  // [n_rows]; the CPU refuses labels out of range, the GPU skips their rows
  const double* sample_weight;  // [n_rows], or nullptr: all 1
  int64_t* workspace;           // [kmeans_update_workspace_size()]
  double* sums;                 // [n_clusters, n_features], added to
  double* counts;               // [n_clusters], added to
  int n_threads;                // CPU only
};

// Moves the rows that changed their cluster from one sum to another. Sums are integers, multiples
// of a power of two per feature. Integer sums do not depend on the order of additions. So
// subtracting the rows that left and adding the rows that joined gives the bits of a new sum, on
// the CPU and on the GPU. Only the rows that changed their cluster are read.
//
// A sum has one limb (64 bits) or two; see Limbs in sum_math.h. With two limbs, the low limbs are
// in 0 .. 2^kLowBits - 1 before and after a call, so equal sums have equal limbs.
struct KmeansMoveParams {
  int64_t n_rows;
  int64_t n_clusters;
  int64_t n_features;
  const void* x;  // [n_rows, n_features] of x_type
  ElementType x_type;
  const int32_t* before;        // [n_rows]; nullptr: the rows were in no cluster
  const int32_t* after;         // [n_rows]; labels out of range as in KmeansUpdateParams
  const double* sample_weight;  // [n_rows], or nullptr: all 1; weights need two limbs
  const double* scale;          // [n_features] powers of two; |weight x| scale < 2^51
  int64_t* workspace;           // [kmeans_move_workspace_size()]
  int64_t* sums;    // [n_clusters, n_features], changed; the high limbs if there are two
  int64_t* low;     // [n_clusters, n_features], changed; nullptr: one limb
  int64_t* counts;  // [n_clusters], changed
  int n_threads;    // CPU only
};

inline void check_limbs(const KmeansMoveParams& p) {
  KTFAST_CHECK(p.sample_weight == nullptr || p.low != nullptr, "sample_weight needs low");
  KTFAST_CHECK(p.low == nullptr || p.n_rows <= kLimbRows, "low limbs hold at most 2^18 rows");
}

// Computes the largest magnitude of every feature; infinite if a number is not finite.
struct KmeansRangeParams {
  int64_t n_rows;
  int64_t n_features;
  const void* x;  // [n_rows, n_features] of x_type
  ElementType x_type;
  double* largest;  // [n_features], not negative, raised
  int n_threads;    // CPU only
};

// Computes centres from integer sums. The centre of an empty cluster stays.
struct KmeansMeansParams {
  int64_t n_clusters;
  int64_t n_features;
  const int64_t* sums;     // [n_clusters, n_features]; the high limbs if there are two
  const int64_t* low;      // [n_clusters, n_features]; nullptr: one limb
  const int64_t* counts;   // [n_clusters]
  const double* weights;   // [n_clusters] total weights; nullptr: the counts
  const double* step;      // [n_features], value of the last bit of a sum
  const double* previous;  // [n_clusters, n_features]
  bool narrow;             // whether to round the centres to float32
  double* centers;         // [n_clusters, n_features]
  double* shifts;          // [n_clusters], squared distance to the previous centre
  int n_threads;           // CPU only
};

// Computes the inertia and the number of rows that changed their label.
struct KmeansTotalsParams {
  int64_t n_rows;
  const double* distances;      // [n_rows]
  const double* sample_weight;  // [n_rows], or nullptr: all 1
  const int32_t* before;        // [n_rows], or nullptr: no change is counted
  const int32_t* after;         // [n_rows]; not read without before
  double* workspace;            // [kmeans_totals_workspace_size()]
  double* totals;               // [2]: sum of weight x distance, number of changes; written
  int n_threads;                // CPU only
};

// Computes the inertia of the rows from their integer sums. With a vector m, x' = x - m and c' = c
// - m, the sum of |x - c|^2 over the n rows of a cluster is the sum of |x'|^2 plus the cluster's
// cost,
//   n |c'|^2 - 2 c'.s',
// where s' is the sum of x'. GPU only. The error of a cost is at most its `error`, which includes
// that each number of a row was rounded to a multiple of the step before it was added.
struct KmeansCostsParams {
  int64_t n_clusters;
  int64_t n_features;
  const int64_t* sums;    // [n_clusters, n_features], as in KmeansMeansParams
  const int64_t* low;     // [n_clusters, n_features]; nullptr: one limb
  const int64_t* counts;  // [n_clusters]
  const double* step;     // [n_features], value of the last bit of a sum
  const double* mean;     // [n_features]; the errors are least if m is near the mean of the rows
  const double* centers;  // [n_clusters, n_features]
  double* costs;          // [n_clusters]
  double* errors;         // [n_clusters]
};

// The lengths of workspaces, in int64; for kmeans_totals in double.
namespace cpu {
int64_t kmeans_move_workspace_size(int64_t n_rows, int64_t n_clusters);
int64_t kmeans_totals_workspace_size(int64_t n_rows);
int64_t kmeans_update_workspace_size(int64_t n_rows, int64_t n_clusters);

void kmeans_means(const KmeansMeansParams& p);
void kmeans_move(const KmeansMoveParams& p);
void kmeans_ranges(const KmeansRangeParams& p);
void kmeans_totals(const KmeansTotalsParams& p);
void kmeans_update(const KmeansUpdateParams& p);
}  // namespace cpu
namespace cuda {
int64_t kmeans_move_workspace_size(int64_t n_rows, int64_t n_clusters);
int64_t kmeans_totals_workspace_size(int64_t n_rows);
int64_t kmeans_update_workspace_size(int64_t n_rows, int64_t n_clusters);

void kmeans_costs(const KmeansCostsParams& p, CUstream_st* stream);
void kmeans_means(const KmeansMeansParams& p, CUstream_st* stream);
void kmeans_move(const KmeansMoveParams& p, CUstream_st* stream);
void kmeans_ranges(const KmeansRangeParams& p, CUstream_st* stream);
void kmeans_totals(const KmeansTotalsParams& p, CUstream_st* stream);
void kmeans_update(const KmeansUpdateParams& p, CUstream_st* stream);
}  // namespace cuda

}  // namespace ktfast
