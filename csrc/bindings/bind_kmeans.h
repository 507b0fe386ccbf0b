// From Python arguments to the params of the k-means ops, for both modules.
#pragma once

#include "kmeans_assign/kmeans_assign.h"
#include "kmeans_update/kmeans_update.h"

#include <optional>
#include <utility>

#include "bindings/arguments.h"

namespace ktfast {

// Every function below calls run(params, device index) without the GIL.
template <class Run>
void with_kmeans_prepare(Device device, const py::object& centers, const py::object& prepared,
                         int64_t (*prepared_size)(int64_t, int64_t), Run run) {
  const auto centers_ = contiguous<const double>(centers, "centers", device, {-1, -1});
  KmeansPrepareParams p{};
  p.n_clusters = centers_.shape(0);
  p.n_features = centers_.shape(1);
  p.centers = centers_.data();
  const auto prepared_ =
      at_least<float>(prepared, "prepared", device, prepared_size(p.n_clusters, p.n_features));
  p.prepared = prepared_.data();
  expect_one_device({&centers_, &prepared_});
  const py::gil_scoped_release release;
  run(p, centers_.device_index());
}

template <class Run>
void with_kmeans_assign(Device device, const py::object& x, const py::object& centers,
                        const py::object& prepared, const py::object& labels,
                        const py::object& distances, int64_t (*prepared_size)(int64_t, int64_t),
                        Run run) {
  const AnyArray x_ = vectors(x, "x", device);
  KmeansAssignParams p{};
  p.n_rows = x_.shape(0);
  p.n_features = x_.shape(1);
  p.x = x_.address();
  p.x_type = element_type(x_);
  const auto centers_ = contiguous<const double>(centers, "centers", device, {-1, p.n_features});
  p.n_clusters = centers_.shape(0);
  p.centers = centers_.data();
  const auto prepared_ = at_least<const float>(prepared, "prepared", device,
                                               prepared_size(p.n_clusters, p.n_features));
  p.prepared = prepared_.data();
  const auto labels_ = contiguous<int32_t>(labels, "labels", device, {p.n_rows});
  p.labels = labels_.data();
  const auto distances_ = contiguous<double>(distances, "distances", device, {p.n_rows});
  p.distances = distances_.data();
  expect_one_device({&x_, &centers_, &prepared_, &labels_, &distances_});
  const py::gil_scoped_release release;
  run(p, x_.device_index());
}

template <class Run>
void with_kmeans_update(Device device, const py::object& x, const py::object& labels,
                        const py::object& sample_weight, const py::object& workspace,
                        const py::object& sums, const py::object& counts,
                        int64_t (*workspace_size)(int64_t, int64_t), Run run) {
  const AnyArray x_ = vectors(x, "x", device);
  KmeansUpdateParams p{};
  p.n_rows = x_.shape(0);
  p.n_features = x_.shape(1);
  p.x = x_.address();
  p.x_type = element_type(x_);
  const auto labels_ = contiguous<const int32_t>(labels, "labels", device, {p.n_rows});
  p.labels = labels_.data();
  std::optional<Array<const double>> weight_;
  if (!sample_weight.is_none()) {
    weight_ = contiguous<const double>(sample_weight, "sample_weight", device, {p.n_rows});
    p.sample_weight = weight_->data();
  }
  const auto sums_ = contiguous<double>(sums, "sums", device, {-1, p.n_features});
  p.n_clusters = sums_.shape(0);
  p.sums = sums_.data();
  const auto counts_ = contiguous<double>(counts, "counts", device, {p.n_clusters});
  p.counts = counts_.data();
  const auto workspace_ =
      at_least<int64_t>(workspace, "workspace", device, workspace_size(p.n_rows, p.n_clusters));
  p.workspace = workspace_.data();
  expect_one_device({&x_, &labels_, &sums_, &counts_, &workspace_});
  if (weight_) expect_one_device({&x_, &*weight_});
  const py::gil_scoped_release release;
  run(p, x_.device_index());
}

}  // namespace ktfast
