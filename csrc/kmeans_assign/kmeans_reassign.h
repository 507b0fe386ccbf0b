// Contract of kmeans_reassign: updates labels after the centres have moved a little.
//
// kmeans_assign recorded bounds of each row's distances. From the bounds and from each centre's
// movement since, the triangle inequality tells which centres may have become nearer than the row's
// own centre. kmeans_reassign compares only these centres. If a row has many such centres,
// kmeans_reassign leaves the row to kmeans_assign. The labels and distances are those of
// kmeans_assign.
#pragma once

#include "kmeans_assign/kmeans_assign.h"

#include <cstdint>

#include "common/element.h"

namespace ktfast {

// How many of the centres that moved farthest are listed, for each snapshot.
constexpr int64_t kFarthest = 128;

// How far the centres have moved since the bounds were recorded.
struct KmeansDrift {
  const uint8_t* moved;           // [n_clusters], 1: the centre differs from the previous one
  const float* drift;             // [n_epochs, n_clusters], distance to the snapshot, rounded up
  const int32_t* farthest;        // [n_epochs, kFarthest], largest drift first, then -1
  const int32_t* farthest_moved;  // [n_epochs, kFarthest], the same for centres that moved
};

struct KmeansSnapshotParams {
  int64_t n_clusters;
  int64_t n_features;
  const double* centers;  // [n_clusters, n_features]
  float* snapshot;        // [n_clusters, n_features], the centers rounded to float32
  int n_threads;
};

struct KmeansDriftParams {
  int64_t n_clusters;
  int64_t n_features;
  int64_t n_epochs;
  const double* centers;        // [n_clusters, n_features], now
  const double* previous;       // [n_clusters, n_features], at the last assignment
  const float* snapshots;       // [n_epochs, n_clusters, n_features], when bounds were recorded
  const float* snapshot_error;  // [n_epochs], the result of kmeans_snapshot
  const uint8_t* known;         // [n_epochs], 1: drift holds the values for `previous`
  uint8_t* moved;               // outputs, as in KmeansDrift
  float* drift;
  int32_t* farthest;
  int32_t* farthest_moved;
  int n_threads;
};

struct KmeansReassignParams {
  int64_t n_rows;
  int64_t n_clusters;
  int64_t n_features;
  const void* x;  // [n_rows, n_features] of x_type
  ElementType x_type;
  const double* centers;  // [n_clusters, n_features]
  const float* prepared;  // of these centers
  CodeType code;          // of the prepared centers
  int64_t n_coordinates;  // of the prepared centers
  int64_t n_epochs;
  KmeansDrift drift;
  KmeansBounds bounds;  // `spent` is increased
  int64_t budget;       // distances of one row from which on kmeans_assign is as fast
  int32_t* labels;      // [n_rows], for the previous centers; updated
  double* distances;    // [n_rows], to the previous centers; updated
  uint8_t* pending;     // [n_rows], written: 1 where kmeans_assign must decide, else 0
  float* workspace;     // [kmeans_assign_workspace_size()]
  int64_t workspace_size;
  int64_t* n_pairs;  // the number of computed distances is added
  int n_threads;
};

namespace cpu {
// Returns an upper bound of the distance between a centre and its rounded copy.
float kmeans_snapshot(const KmeansSnapshotParams& p);
void kmeans_drift(const KmeansDriftParams& p);
void kmeans_reassign(const KmeansReassignParams& p);
}  // namespace cpu

}  // namespace ktfast
