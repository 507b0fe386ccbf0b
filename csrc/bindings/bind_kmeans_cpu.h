// From Python arguments to the params of the k-means functions that only the CPU has.
#pragma once

#include <string>

#include "bindings/arguments.h"
#include "bindings/bind_kmeans.h"
#include "kmeans_assign/cpu/costs.h"
#include "kmeans_assign/kmeans_reassign.h"
#include "kmeans_assign/kmeans_tensor.h"

namespace ktfast {

inline CodeType code_type(const std::string& name) {
  if (name == "float32") return CodeType::float32;
  if (name == "bfloat16") return CodeType::bfloat16;
  if (name == "int8") return CodeType::int8;
  throw py::value_error("code must be float32, bfloat16 or int8, got '" + name + "'");
}

template <class Params>
void set_workspace(Arguments& a, int64_t n_coordinates, Params& p) {
  p.workspace_size = cpu::kmeans_assign_workspace_size(p.n_features, n_coordinates, p.n_threads);
  p.workspace = a.buffer<float>("workspace", p.workspace_size);
}

inline KmeansBasis basis_of(Arguments& a, int64_t n_features) {
  KmeansBasis basis{};
  basis.n_coordinates = a.value<int64_t>("n_coordinates");
  if (basis.n_coordinates < 0) throw py::value_error("n_coordinates must be 0 or more");
  if (basis.n_coordinates > 0) {
    const int64_t n_panels = (basis.n_coordinates + cpu::kPanelWidth - 1) / cpu::kPanelWidth;
    basis.vectors =
        a.array<const float>("basis", {n_panels, cpu::kColumns, n_features, cpu::kColumnWidth});
    basis.error = a.value<float>("basis_error");
  }
  return basis;
}

// The constants that Python needs to allocate the arrays of the k-means functions. The sizes of a
// GPU's codes are here too, because every build has this module.
inline void export_kmeans_constants(py::module_& m) {
  m.attr("KMEANS_PANEL_WIDTH") = cpu::kPanelWidth;
  m.attr("KMEANS_COLUMN_WIDTH") = cpu::kColumnWidth;
  m.attr("KMEANS_ROW_CONSTANTS") = kRowConstants;
  m.attr("KMEANS_NEAR_CENTERS") = kNearCenters;
  m.attr("KMEANS_PLACE_NUMBERS") = kPlaceNumbers;
  m.attr("KMEANS_FARTHEST") = kFarthest;
  m.attr("KMEANS_TENSOR_TILE_ROWS") = kTensorTileRows;
  m.attr("KMEANS_TENSOR_ROW_CONSTANTS") = kTensorConstants;
  m.attr("KMEANS_TENSOR_MOST_FEATURES") = kMostTensorFeatures;
}

// The table of costs.h for the instruction set in use and one code.
inline py::dict kmeans_assign_costs(const std::string& code) {
  const cpu::AssignCosts costs = cpu::assign_costs(simd_level(), code_type(code));
  py::dict table;
  table["products_per_cycle"] = costs.products_per_cycle;
  table["slot_cycles"] = costs.slot_cycles;
  table["feature_cycles"] = costs.feature_cycles;
  table["pair_features_per_cycle"] = costs.pair_features_per_cycle;
  table["pair_cycles"] = costs.pair_cycles;
  table["bounds_cycles"] = costs.bounds_cycles;
  table["bounds_pairs"] = costs.bounds_pairs;
  return table;
}

// Reads centres and their preparation into a params struct with both.
template <class Params>
void set_centers(Arguments& a, Params& p) {
  p.code = code_type(a.value<std::string>("code"));
  p.n_coordinates = a.value<int64_t>("n_coordinates");
  if (p.n_coordinates < 0) throw py::value_error("n_coordinates must be 0 or more");
  const auto centers = a.checked<const double>("centers", {-1, p.n_features});
  p.n_clusters = centers.shape(0);
  p.centers = centers.data();
  p.prepared = a.buffer<const float>(
      "prepared", cpu::kmeans_prepared_size(p.n_clusters, p.n_features, p.n_coordinates, p.code));
}

template <class Params>
void set_bounds(Arguments& a, Params& p) {
  p.bounds.near = a.optional_array<int32_t>("near", {p.n_rows, kNearCenters});
  if (p.bounds.near == nullptr) return;
  p.bounds.near_bounds = a.array<float>("near_bounds", {p.n_rows, kNearCenters});
  p.bounds.rest_bound = a.array<float>("rest_bound", {p.n_rows});
  p.bounds.epoch = a.array<uint8_t>("epochs", {p.n_rows});
  p.bounds.spent = a.array<uint16_t>("spent", {p.n_rows});
}

inline void bind_kmeans_prepare(const py::kwargs& given) {
  Arguments a(given);
  KmeansPrepareParams p{};
  const auto centers = a.checked<const double>("centers", {-1, -1});
  p.n_clusters = centers.shape(0);
  p.n_features = centers.shape(1);
  p.centers = centers.data();
  p.code = code_type(a.value<std::string>("code"));
  p.mean = a.array<const float>("mean", {p.n_features});
  p.basis = basis_of(a, p.n_features);
  p.prepared = a.buffer<float>(
      "prepared",
      cpu::kmeans_prepared_size(p.n_clusters, p.n_features, p.basis.n_coordinates, p.code));
  if (a.has("order")) {
    p.order = a.array<const int32_t>("order", {p.n_clusters});
    p.places = a.array<const float>("places", {p.n_clusters, kPlaceNumbers});
  }
  p.n_threads = a.value<int>("n_threads");
  const py::gil_scoped_release release;
  cpu::kmeans_prepare(p);
}

inline void bind_kmeans_encode(const py::kwargs& given) {
  Arguments a(given);
  KmeansEncodeParams p{};
  set_rows(a, p);
  p.n_threads = a.value<int>("n_threads");
  p.code = code_type(a.value<std::string>("code"));
  p.mean = a.array<const float>("mean", {p.n_features});
  p.basis = basis_of(a, p.n_features);
  set_workspace(a, p.basis.n_coordinates, p);
  const int64_t bytes = cpu::kmeans_code_bytes(p.n_features, p.basis.n_coordinates, p.code);
  p.codes = a.array<int8_t>("codes", {p.n_rows, bytes});
  p.constants = a.array<float>("constants", {p.n_rows, kRowConstants});
  const py::gil_scoped_release release;
  cpu::kmeans_encode(p);
}

inline void bind_kmeans_distances(const py::kwargs& given) {
  Arguments a(given);
  KmeansDistancesParams p{};
  set_rows(a, p);
  const auto centers = a.checked<const double>("centers", {-1, p.n_features});
  p.n_clusters = centers.shape(0);
  p.centers = centers.data();
  p.distances = a.array<double>("distances", {p.n_rows, p.n_clusters});
  const py::gil_scoped_release release;
  cpu::kmeans_distances(p);
}

// Returns how many candidates the screen left and how many centres were compared, for all rows.
inline int64_t bind_kmeans_assign(const py::kwargs& given) {
  Arguments a(given);
  KmeansAssignParams p{};
  set_rows(a, p);
  p.n_threads = a.value<int>("n_threads");
  set_centers(a, p);
  set_workspace(a, p.n_coordinates, p);
  p.labels = a.array<int32_t>("labels", {p.n_rows});
  p.distances = a.array<double>("distances", {p.n_rows});
  const int64_t bytes = cpu::kmeans_code_bytes(p.n_features, p.n_coordinates, p.code);
  p.codes = a.optional_array<const int8_t>("codes", {p.n_rows, bytes});
  if (p.codes != nullptr)
    p.constants = a.array<const float>("constants", {p.n_rows, kRowConstants});
  if (!a["subset"].is_none()) {
    const auto subset = a.checked<const int64_t>("subset", {-1});
    p.subset = subset.data();
    p.n_subset = subset.shape(0);
  }
  p.guessed = a.value<bool>("guessed");
  if (a.has("places")) p.places = a.array<const float>("places", {p.n_rows, kPlaceNumbers});
  set_bounds(a, p);
  p.epoch = a.value<uint8_t>("epoch");
  p.margin = a.value<float>("margin");
  int64_t n_passed = 0;
  p.n_passed = &n_passed;
  const py::gil_scoped_release release;
  cpu::kmeans_assign(p);
  return n_passed;
}

// Returns an upper bound of the distance between a centre and its rounded copy.
inline float bind_kmeans_snapshot(const py::kwargs& given) {
  Arguments a(given);
  KmeansSnapshotParams p{};
  const auto centers = a.checked<const double>("centers", {-1, -1});
  p.n_clusters = centers.shape(0);
  p.n_features = centers.shape(1);
  p.centers = centers.data();
  p.snapshot = a.array<float>("snapshot", {p.n_clusters, p.n_features});
  p.n_threads = a.value<int>("n_threads");
  const py::gil_scoped_release release;
  return cpu::kmeans_snapshot(p);
}

inline void bind_kmeans_drift(const py::kwargs& given) {
  Arguments a(given);
  KmeansDriftParams p{};
  const auto centers = a.checked<const double>("centers", {-1, -1});
  p.n_clusters = centers.shape(0);
  p.n_features = centers.shape(1);
  p.centers = centers.data();
  p.previous = a.array<const double>("previous", {p.n_clusters, p.n_features});
  const auto snapshots = a.checked<const float>("snapshots", {-1, p.n_clusters, p.n_features});
  p.n_epochs = snapshots.shape(0);
  p.snapshots = snapshots.data();
  p.snapshot_error = a.array<const float>("snapshot_error", {p.n_epochs});
  p.known = a.array<const uint8_t>("known", {p.n_epochs});
  p.moved = a.array<uint8_t>("moved", {p.n_clusters});
  p.drift = a.array<float>("drift", {p.n_epochs, p.n_clusters});
  p.farthest = a.array<int32_t>("farthest", {p.n_epochs, kFarthest});
  p.farthest_moved = a.array<int32_t>("farthest_moved", {p.n_epochs, kFarthest});
  p.n_threads = a.value<int>("n_threads");
  const py::gil_scoped_release release;
  cpu::kmeans_drift(p);
}

// Returns how many distances were computed.
inline int64_t bind_kmeans_reassign(const py::kwargs& given) {
  Arguments a(given);
  KmeansReassignParams p{};
  set_rows(a, p);
  p.n_threads = a.value<int>("n_threads");
  set_centers(a, p);
  set_workspace(a, p.n_coordinates, p);
  p.drift.moved = a.array<const uint8_t>("moved", {p.n_clusters});
  const auto drift = a.checked<const float>("drift", {-1, p.n_clusters});
  p.n_epochs = drift.shape(0);
  p.drift.drift = drift.data();
  p.drift.farthest = a.array<const int32_t>("farthest", {p.n_epochs, kFarthest});
  p.drift.farthest_moved = a.array<const int32_t>("farthest_moved", {p.n_epochs, kFarthest});
  set_bounds(a, p);
  if (p.bounds.near == nullptr) throw py::type_error("near must be an array, got None");
  p.budget = a.value<int64_t>("budget");
  p.labels = a.array<int32_t>("labels", {p.n_rows});
  p.distances = a.array<double>("distances", {p.n_rows});
  p.pending = a.array<uint8_t>("pending", {p.n_rows});
  int64_t n_pairs = 0;
  p.n_pairs = &n_pairs;
  const py::gil_scoped_release release;
  cpu::kmeans_reassign(p);
  return n_pairs;
}

}  // namespace ktfast
