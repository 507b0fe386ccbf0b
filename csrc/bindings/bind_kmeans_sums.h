// From Python arguments to the params of kmeans_ranges, kmeans_move, kmeans_means and
// kmeans_totals, for both modules.
#pragma once

#include "kmeans_update/kmeans_update.h"

#include "bindings/arguments.h"

namespace ktfast {

// Every function below calls run(params, device index) without the GIL.
template <class Run>
void with_kmeans_move(Arguments& a, int64_t (*workspace_size)(int64_t, int64_t), Run run) {
  KmeansMoveParams p{};
  set_rows(a, p);
  p.before = a.optional_array<const int32_t>("before", {p.n_rows});
  p.after = a.array<const int32_t>("after", {p.n_rows});
  p.sample_weight = a.optional_array<const double>("sample_weight", {p.n_rows});
  p.scale = a.array<const double>("scale", {p.n_features});
  const auto sums = a.checked<int64_t>("sums", {-1, p.n_features});
  p.n_clusters = sums.shape(0);
  p.sums = sums.data();
  p.low = a.optional_array<int64_t>("low", {p.n_clusters, p.n_features});
  p.counts = a.array<int64_t>("counts", {p.n_clusters});
  p.workspace = a.buffer<int64_t>("workspace", workspace_size(p.n_rows, p.n_clusters));
  const py::gil_scoped_release release;
  run(p, a.device_index());
}

template <class Run>
void with_kmeans_ranges(Arguments& a, Run run) {
  KmeansRangeParams p{};
  set_rows(a, p);
  p.largest = a.array<double>("largest", {p.n_features});
  const py::gil_scoped_release release;
  run(p, a.device_index());
}

template <class Run>
void with_kmeans_means(Arguments& a, Run run) {
  KmeansMeansParams p{};
  const auto sums = a.checked<const int64_t>("sums", {-1, -1});
  p.n_clusters = sums.shape(0);
  p.n_features = sums.shape(1);
  p.sums = sums.data();
  p.low = a.optional_array<const int64_t>("low", {p.n_clusters, p.n_features});
  p.counts = a.array<const int64_t>("counts", {p.n_clusters});
  p.weights = a.optional_array<const double>("weights", {p.n_clusters});
  p.narrow = a.value<bool>("narrow");
  p.step = a.array<const double>("step", {p.n_features});
  p.previous = a.array<const double>("previous", {p.n_clusters, p.n_features});
  p.centers = a.array<double>("centers", {p.n_clusters, p.n_features});
  p.shifts = a.array<double>("shifts", {p.n_clusters});
  const py::gil_scoped_release release;
  run(p, a.device_index());
}

template <class Run>
void with_kmeans_costs(Arguments& a, Run run) {
  KmeansCostsParams p{};
  const auto sums = a.checked<const int64_t>("sums", {-1, -1});
  p.n_clusters = sums.shape(0);
  p.n_features = sums.shape(1);
  p.sums = sums.data();
  p.low = a.optional_array<const int64_t>("low", {p.n_clusters, p.n_features});
  p.counts = a.array<const int64_t>("counts", {p.n_clusters});
  p.step = a.array<const double>("step", {p.n_features});
  p.mean = a.array<const double>("mean", {p.n_features});
  p.centers = a.array<const double>("centers", {p.n_clusters, p.n_features});
  p.costs = a.array<double>("costs", {p.n_clusters});
  p.errors = a.array<double>("errors", {p.n_clusters});
  const py::gil_scoped_release release;
  run(p, a.device_index());
}

template <class Run>
void with_kmeans_totals(Arguments& a, int64_t (*workspace_size)(int64_t), Run run) {
  KmeansTotalsParams p{};
  const auto distances = a.checked<const double>("distances", {-1});
  p.n_rows = distances.shape(0);
  p.distances = distances.data();
  p.sample_weight = a.optional_array<const double>("sample_weight", {p.n_rows});
  p.before = a.optional_array<const int32_t>("before", {p.n_rows});
  if (p.before != nullptr) p.after = a.array<const int32_t>("after", {p.n_rows});
  p.workspace = a.buffer<double>("workspace", workspace_size(p.n_rows));
  p.totals = a.array<double>("totals", {2});
  const py::gil_scoped_release release;
  run(p, a.device_index());
}

}  // namespace ktfast
