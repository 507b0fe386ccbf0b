// From Python arguments to the params of kmeans_assign and kmeans_update, for both modules.
#pragma once

#include <optional>

#include "bindings/array.h"
#include "kmeans_assign/kmeans_assign.h"
#include "kmeans_update/kmeans_update.h"

namespace ktfast {

// Calls run(params, device index) without the GIL.
template <class Run>
void with_kmeans_assign(Device device, const py::object& x, const py::object& centers,
                        const py::object& labels, const py::object& distances, Run run) {
  const auto x_ = contiguous<const float>(x, "x", device, {-1, -1});
  const int64_t n = x_.shape(0);
  const int64_t d = x_.shape(1);
  const auto centers_ = contiguous<const float>(centers, "centers", device, {-1, d});
  const auto labels_ = contiguous<int32_t>(labels, "labels", device, {n});
  const auto distances_ = contiguous<float>(distances, "distances", device, {n});
  KmeansAssignParams p{};
  p.n_rows = n;
  p.n_clusters = centers_.shape(0);
  p.n_features = d;
  p.x = x_.data();
  p.centers = centers_.data();
  p.labels = labels_.data();
  p.distances = distances_.data();
  const py::gil_scoped_release release;
  run(p, x_.device_index());
}

template <class Run>
void with_kmeans_update(Device device, const py::object& x, const py::object& labels,
                        const py::object& sample_weight, const py::object& sums,
                        const py::object& counts, Run run) {
  const auto x_ = contiguous<const float>(x, "x", device, {-1, -1});
  const int64_t n = x_.shape(0);
  const int64_t d = x_.shape(1);
  const auto labels_ = contiguous<const int32_t>(labels, "labels", device, {n});
  const auto sums_ = contiguous<double>(sums, "sums", device, {-1, d});
  const auto counts_ = contiguous<double>(counts, "counts", device, {sums_.shape(0)});
  KmeansUpdateParams p{};
  std::optional<Array<const double>> weight_;
  if (!sample_weight.is_none()) {
    weight_ = contiguous<const double>(sample_weight, "sample_weight", device, {n});
    p.sample_weight = weight_->data();
  }
  p.n_rows = n;
  p.n_clusters = sums_.shape(0);
  p.n_features = d;
  p.x = x_.data();
  p.labels = labels_.data();
  p.sums = sums_.data();
  p.counts = counts_.data();
  const py::gil_scoped_release release;
  run(p, x_.device_index());
}

}  // namespace ktfast
