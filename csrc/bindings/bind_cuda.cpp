// The module ktfast.native._cuda. Its functions run on the caller's device and stream. The CUDA
// runtime is linked statically, so the module also loads on machines without a driver.
#include <cuda_runtime.h>
#include <pybind11/pybind11.h>

#include "bindings/arguments.h"
#include "bindings/bind_jigsaw_tiles.h"
#include "bindings/bind_kmeans.h"
#include "bindings/bind_kmeans_sums.h"
#include "bindings/bind_kmeans_tensor.h"
#include "common/cuda_check.cuh"

namespace ktfast {
namespace {

// The number of devices. Without a driver the number is 0, and no error is raised.
int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());  // clears the sticky error
    return 0;
  }
  return count;
}

// Ten times the compute capability, such as 90. Devices are numbered from 0.
int compute_capability(int device) {
  int major = 0;
  int minor = 0;
  KTFAST_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  KTFAST_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  return 10 * major + minor;
}

CUstream_st* stream_at(uintptr_t address) { return reinterpret_cast<CUstream_st*>(address); }

// No function keeps state, so the functions may run side by side without a GIL.
PYBIND11_MODULE(_cuda, m, py::mod_gil_not_used()) {
  m.doc() = "CUDA kernels; arrays are passed through DLPack, outputs are allocated by the caller.";

  m.attr("architectures") = KTFAST_CUDA_ARCHITECTURES;  // as passed to CMake: "90-real 120"

  m.def("device_count", &device_count, "The number of usable CUDA devices; 0 without a driver.");

  m.def("compute_capability", &compute_capability,
        "Ten times the compute capability of a device, such as 90.", py::arg("device"));

  m.def("jigsaw_tiles", [](const py::kwargs& a) {
    CUstream_st* stream = stream_at(a["stream"].cast<uintptr_t>());
    with_jigsaw_tiles(Device::cuda, a, [&](const JigsawTilesParams& p, int device) {
      const DeviceGuard guard(device);
      cuda::jigsaw_tiles(p, stream);
    });
  });

  m.def("kmeans_prepared_size", &cuda::kmeans_prepared_size,
        "Length of kmeans_prepare's output, in float32.", py::kw_only(), py::arg("n_clusters"),
        py::arg("n_features"));

  m.def(
      "kmeans_prepare",
      [](const py::object& centers, const py::object& prepared, uintptr_t stream) {
        with_kmeans_prepare(Device::cuda, centers, prepared, cuda::kmeans_prepared_size,
                            [&](const KmeansPrepareParams& p, int device) {
                              const DeviceGuard guard(device);
                              cuda::kmeans_prepare(p, stream_at(stream));
                            });
      },
      py::kw_only(), py::arg("centers"), py::arg("prepared"), py::arg("stream"));

  m.def(
      "kmeans_assign",
      [](const py::object& x, const py::object& centers, const py::object& prepared,
         const py::object& labels, const py::object& distances, uintptr_t stream) {
        with_kmeans_assign(Device::cuda, x, centers, prepared, labels, distances,
                           cuda::kmeans_prepared_size,
                           [&](const KmeansAssignParams& p, int device) {
                             const DeviceGuard guard(device);
                             cuda::kmeans_assign(p, stream_at(stream));
                           });
      },
      py::kw_only(), py::arg("x"), py::arg("centers"), py::arg("prepared"), py::arg("labels"),
      py::arg("distances"), py::arg("stream"));

  m.def(
      "kmeans_tensor_prepared_size",
      [](int64_t n_clusters, int64_t n_features, const std::string& code) {
        return cuda::kmeans_tensor_prepared_size(n_clusters, n_features, tensor_code(code));
      },
      "Bytes of kmeans_tensor_prepare's output.", py::kw_only(), py::arg("n_clusters"),
      py::arg("n_features"), py::arg("code"));
  m.def(
      "kmeans_tensor_tile_bytes",
      [](int64_t n_features, const std::string& code) {
        return cuda::kmeans_tensor_tile_bytes(n_features, tensor_code(code));
      },
      "Bytes of the codes of 128 rows.", py::kw_only(), py::arg("n_features"), py::arg("code"));
  m.def("kmeans_tensor_workspace_size", &cuda::kmeans_tensor_workspace_size,
        "Length of kmeans_tensor_assign's workspace, in int64.", py::kw_only(), py::arg("n_rows"));
  m.def("kmeans_tensor_prepare", [](const py::kwargs& given) {
    Arguments a(given, Device::cuda);
    CUstream_st* stream = stream_at(a.value<uintptr_t>("stream"));
    with_kmeans_tensor_prepare(a, [&](const KmeansTensorPrepareParams& p, int device) {
      const DeviceGuard guard(device);
      cuda::kmeans_tensor_prepare(p, stream);
    });
  });
  m.def("kmeans_tensor_encode", [](const py::kwargs& given) {
    Arguments a(given, Device::cuda);
    CUstream_st* stream = stream_at(a.value<uintptr_t>("stream"));
    with_kmeans_tensor_encode(a, [&](const KmeansTensorEncodeParams& p, int device) {
      const DeviceGuard guard(device);
      cuda::kmeans_tensor_encode(p, stream);
    });
  });
  m.def("kmeans_tensor_assign", [](const py::kwargs& given) {
    Arguments a(given, Device::cuda);
    CUstream_st* stream = stream_at(a.value<uintptr_t>("stream"));
    with_kmeans_tensor_assign(a, [&](const KmeansTensorAssignParams& p, int device) {
      const DeviceGuard guard(device);
      cuda::kmeans_tensor_assign(p, stream);
    });
  });
  m.def("kmeans_tensor_moves", [](const py::kwargs& given) {
    Arguments a(given, Device::cuda);
    CUstream_st* stream = stream_at(a.value<uintptr_t>("stream"));
    with_kmeans_tensor_moves(a, [&](const KmeansTensorMovesParams& p, int device) {
      const DeviceGuard guard(device);
      cuda::kmeans_tensor_moves(p, stream);
    });
  });
  m.def("kmeans_tensor_distances", [](const py::kwargs& given) {
    Arguments a(given, Device::cuda);
    CUstream_st* stream = stream_at(a.value<uintptr_t>("stream"));
    with_kmeans_tensor_distances(a, [&](const KmeansTensorDistancesParams& p, int device) {
      const DeviceGuard guard(device);
      cuda::kmeans_tensor_distances(p, stream);
    });
  });

  m.def("kmeans_move_workspace_size", &cuda::kmeans_move_workspace_size,
        "Length of kmeans_move's workspace, in int64.", py::kw_only(), py::arg("n_rows"),
        py::arg("n_clusters"));
  m.def("kmeans_move", [](const py::kwargs& given) {
    Arguments a(given, Device::cuda);
    CUstream_st* stream = stream_at(a.value<uintptr_t>("stream"));
    with_kmeans_move(a, cuda::kmeans_move_workspace_size,
                     [&](const KmeansMoveParams& p, int device) {
                       const DeviceGuard guard(device);
                       cuda::kmeans_move(p, stream);
                     });
  });
  m.def("kmeans_ranges", [](const py::kwargs& given) {
    Arguments a(given, Device::cuda);
    CUstream_st* stream = stream_at(a.value<uintptr_t>("stream"));
    with_kmeans_ranges(a, [&](const KmeansRangeParams& p, int device) {
      const DeviceGuard guard(device);
      cuda::kmeans_ranges(p, stream);
    });
  });
  m.def("kmeans_means", [](const py::kwargs& given) {
    Arguments a(given, Device::cuda);
    CUstream_st* stream = stream_at(a.value<uintptr_t>("stream"));
    with_kmeans_means(a, [&](const KmeansMeansParams& p, int device) {
      const DeviceGuard guard(device);
      cuda::kmeans_means(p, stream);
    });
  });
  m.def("kmeans_costs", [](const py::kwargs& given) {
    Arguments a(given, Device::cuda);
    CUstream_st* stream = stream_at(a.value<uintptr_t>("stream"));
    with_kmeans_costs(a, [&](const KmeansCostsParams& p, int device) {
      const DeviceGuard guard(device);
      cuda::kmeans_costs(p, stream);
    });
  });
  m.def("kmeans_totals_workspace_size", &cuda::kmeans_totals_workspace_size,
        "Length of kmeans_totals's workspace, in float64.", py::kw_only(), py::arg("n_rows"));
  m.def("kmeans_totals", [](const py::kwargs& given) {
    Arguments a(given, Device::cuda);
    CUstream_st* stream = stream_at(a.value<uintptr_t>("stream"));
    with_kmeans_totals(a, cuda::kmeans_totals_workspace_size,
                       [&](const KmeansTotalsParams& p, int device) {
                         const DeviceGuard guard(device);
                         cuda::kmeans_totals(p, stream);
                       });
  });

  m.def("kmeans_update_workspace_size", &cuda::kmeans_update_workspace_size,
        "Length of kmeans_update's workspace, in int64.", py::kw_only(), py::arg("n_rows"),
        py::arg("n_clusters"));

  m.def(
      "kmeans_update",
      [](const py::object& x, const py::object& labels, const py::object& sample_weight,
         const py::object& workspace, const py::object& sums, const py::object& counts,
         uintptr_t stream) {
        with_kmeans_update(Device::cuda, x, labels, sample_weight, workspace, sums, counts,
                           cuda::kmeans_update_workspace_size,
                           [&](const KmeansUpdateParams& p, int device) {
                             const DeviceGuard guard(device);
                             cuda::kmeans_update(p, stream_at(stream));
                           });
      },
      py::kw_only(), py::arg("x"), py::arg("labels"), py::arg("sample_weight"),
      py::arg("workspace"), py::arg("sums"), py::arg("counts"), py::arg("stream"));
}

}  // namespace
}  // namespace ktfast
