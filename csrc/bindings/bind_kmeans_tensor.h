// From Python arguments to the params of kmeans_tensor, which only the CUDA module has.
#pragma once

#include <string>

#include "bindings/arguments.h"
#include "kmeans_assign/kmeans_tensor.h"

namespace ktfast {

inline TensorCode tensor_code(const std::string& name) {
  if (name == "int8") return TensorCode::int8;
  if (name == "float16") return TensorCode::float16;
  throw py::value_error("code must be int8 or float16, got '" + name + "'");
}

inline TensorCode tensor_code(const Arguments& a) {
  return tensor_code(a.value<std::string>("code"));
}

inline ProductPath product_path(const std::string& name) {
  if (name == "fastest") return ProductPath::fastest;
  if (name == "mma") return ProductPath::mma;
  throw py::value_error("path must be fastest or mma, got '" + name + "'");
}

// Every function below calls run(params, device index) without the GIL.
template <class Run>
void with_kmeans_tensor_prepare(Arguments& a, Run run) {
  KmeansTensorPrepareParams p{};
  const auto centers = a.checked<const double>("centers", {-1, -1});
  p.n_clusters = centers.shape(0);
  p.n_features = centers.shape(1);
  p.centers = centers.data();
  p.code = tensor_code(a);
  p.mean = a.array<const float>("mean", {p.n_features});
  p.prepared = a.buffer<int8_t>(
      "prepared", cuda::kmeans_tensor_prepared_size(p.n_clusters, p.n_features, p.code));
  const py::gil_scoped_release release;
  run(p, a.device_index());
}

template <class Params>
auto tensor_codes_shape(const Params& p) {
  return std::pair((p.n_rows + kTensorTileRows - 1) / kTensorTileRows,
                   cuda::kmeans_tensor_tile_bytes(p.n_features, p.code));
}

template <class Run>
void with_kmeans_tensor_encode(Arguments& a, Run run) {
  KmeansTensorEncodeParams p{};
  set_rows(a, p);
  p.code = tensor_code(a);
  p.mean = a.array<const float>("mean", {p.n_features});
  const auto [n_tiles, bytes] = tensor_codes_shape(p);
  p.codes = a.array<int8_t>("codes", {n_tiles, bytes});
  p.constants = a.array<float>("constants", {p.n_rows, kTensorConstants});
  const py::gil_scoped_release release;
  run(p, a.device_index());
}

template <class Run>
void with_kmeans_tensor_assign(Arguments& a, Run run) {
  KmeansTensorAssignParams p{};
  set_rows(a, p);
  p.code = tensor_code(a);
  const auto centers = a.checked<const double>("centers", {-1, p.n_features});
  p.n_clusters = centers.shape(0);
  p.centers = centers.data();
  p.prepared = a.buffer<const int8_t>(
      "prepared", cuda::kmeans_tensor_prepared_size(p.n_clusters, p.n_features, p.code));
  const auto [n_tiles, bytes] = tensor_codes_shape(p);
  p.codes = a.array<const int8_t>("codes", {n_tiles, bytes});
  p.constants = a.array<const float>("constants", {p.n_rows, kTensorConstants});
  p.labels = a.array<int32_t>("labels", {p.n_rows});
  p.distances = a.array<double>("distances", {p.n_rows});
  p.guessed = a.value<bool>("guessed");
  p.certify = a.value<bool>("certify");
  p.bounds = a.value<bool>("bounds");
  p.moves = a.optional_array<const double>("moves", {p.n_clusters + 1});
  p.others = a.optional_array<double>("others", {p.n_rows});
  p.path = product_path(a.value<std::string>("path"));
  p.workspace = a.buffer<int64_t>("workspace", cuda::kmeans_tensor_workspace_size(p.n_rows));
  p.n_passed = a.optional_array<int64_t>("n_passed", {1});
  p.n_multiplied = a.optional_array<int64_t>("n_multiplied", {1});
  const py::gil_scoped_release release;
  run(p, a.device_index());
}

template <class Run>
void with_kmeans_tensor_moves(Arguments& a, Run run) {
  KmeansTensorMovesParams p{};
  const auto centers = a.checked<const double>("centers", {-1, -1});
  p.n_clusters = centers.shape(0);
  p.n_features = centers.shape(1);
  p.centers = centers.data();
  p.previous = a.array<const double>("previous", {p.n_clusters, p.n_features});
  p.moves = a.array<double>("moves", {p.n_clusters + 1});
  const py::gil_scoped_release release;
  run(p, a.device_index());
}

template <class Run>
void with_kmeans_tensor_distances(Arguments& a, Run run) {
  KmeansTensorDistancesParams p{};
  set_rows(a, p);
  const auto centers = a.checked<const double>("centers", {-1, p.n_features});
  p.n_clusters = centers.shape(0);
  p.centers = centers.data();
  p.labels = a.optional_array<const int32_t>("labels", {p.n_rows});
  p.distances = a.array<double>("distances", {p.n_rows});
  const py::gil_scoped_release release;
  run(p, a.device_index());
}

}  // namespace ktfast
