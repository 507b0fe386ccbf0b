// Contract of kmeans_reassign: labels after the centres have moved a little.
//
// From what kmeans_assign noted of a row, and from how far each centre has moved since, the
// triangle inequality tells which centres may have become nearer than the row's own. Only these are
// compared; where they are many, the row is left to kmeans_assign. The answer is the same.
#pragma once

#include "kmeans_assign/kmeans_assign.h"

#include <cstdint>

#include "common/element.h"

namespace ktfast {

// The centres that moved farthest are known by name: so many per snapshot.
constexpr int64_t kFarthest = 128;

// How far the centres have moved since bounds were noted.
struct KmeansDrift {
  const uint8_t* moved;           // [n_clusters], whether a centre differs from the previous one
  const float* drift;             // [n_epochs, n_clusters], distance to the snapshot, rounded up
  const int32_t* farthest;        // [n_epochs, kFarthest], largest drift first, -1 behind the last
  const int32_t* farthest_moved;  // [n_epochs, kFarthest], the same among those that moved
};

struct KmeansSnapshotParams {
  int64_t n_clusters;
  int64_t n_features;
  const double* centers;  // [n_clusters, n_features]
  float* snapshot;        // [n_clusters, n_features], the same rounded
  int n_threads;
};

struct KmeansDriftParams {
  int64_t n_clusters;
  int64_t n_features;
  int64_t n_epochs;
  const double* centers;        // [n_clusters, n_features], now
  const double* previous;       // [n_clusters, n_features], at the last assignment
  const float* snapshots;       // [n_epochs, n_clusters, n_features], when bounds were noted
  const float* snapshot_error;  // [n_epochs], how far a snapshot may be from what it stands for
  const uint8_t* known;         // [n_epochs], 1: drift holds what was written for `previous`
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
  int64_t n_coordinates;  // likewise
  int64_t n_epochs;
  KmeansDrift drift;
  KmeansBounds bounds;  // `spent` is counted up
  int64_t budget;       // pairs of one row for which kmeans_assign is no dearer
  int32_t* labels;      // [n_rows], of the previous centers; changed
  double* distances;    // [n_rows], likewise
  uint8_t* pending;     // [n_rows], 1 where kmeans_assign must decide, else 0
  float* workspace;     // [kmeans_assign_workspace_size()]
  int64_t workspace_size;
  int64_t* n_pairs;  // distances computed, added up
  int n_threads;
};

namespace cpu {
// Returns how far a rounded centre may be from what it was, at most.
float kmeans_snapshot(const KmeansSnapshotParams& p);
void kmeans_drift(const KmeansDriftParams& p);
void kmeans_reassign(const KmeansReassignParams& p);
}  // namespace cpu

}  // namespace ktfast
