// From Python arguments to the params of the k-means ops, for both modules.
#pragma once

#include <optional>
#include <utility>

#include "bindings/array.h"
#include "kmeans_assign/kmeans_assign.h"
#include "kmeans_update/kmeans_update.h"

namespace ktfast {

inline ElementType element_type(const AnyArray& x) {
  if (x.has_dtype<float>()) return ElementType::float32;
  if (x.has_dtype<double>()) return ElementType::float64;
  if (x.has_dtype<float16_bits>()) return ElementType::float16;
  if (x.has_dtype<bfloat16_bits>()) return ElementType::bfloat16;
  if (x.has_dtype<uint8_t>()) return ElementType::uint8;
  if (x.has_dtype<int8_t>()) return ElementType::int8;
  throw py::type_error(x.name() +
                       " must be float32, float64, float16, bfloat16, uint8 or int8, got " +
                       dtype_name(x.dtype()));
}

inline AnyArray vectors(const py::object& x, const char* name, Device device) {
  AnyArray array(x, name, device, false);
  array.expect_shape({-1, -1});
  array.expect_contiguous();
  return array;
}

template <class T>
Array<T> at_least(const py::object& object, const char* name, Device device, int64_t length) {
  auto array = contiguous<T>(object, name, device, {-1});
  if (array.shape(0) < length) {
    throw py::value_error(std::string(name) + " must hold at least " + std::to_string(length) +
                          " elements, got " + std::to_string(array.shape(0)));
  }
  return array;
}

// Each calls run(params, device index) without the GIL.
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
