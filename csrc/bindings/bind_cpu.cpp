// The module ktfast._cpu: one block per op, no logic. It never loads the CUDA runtime.
#include <pybind11/pybind11.h>

#include "bindings/bind_kmeans.h"
#include "common/cpu_features.h"

namespace ktfast {
namespace {

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "CPU kernels; arrays are passed through DLPack, outputs are allocated by the caller.";

  m.def(
      "simd_level", [] { return simd_name(simd_level()); },
      "The instruction-set level the kernels use: scalar, avx2 or avx512.");

  m.def(
      "kmeans_assign",
      [](const py::object& x, const py::object& centers, const py::object& labels,
         const py::object& distances, int n_threads) {
        with_kmeans_assign(Device::cpu, x, centers, labels, distances,
                           [&](KmeansAssignParams& p, int) {
                             p.n_threads = n_threads;
                             cpu::kmeans_assign(p);
                           });
      },
      py::kw_only(), py::arg("x"), py::arg("centers"), py::arg("labels"), py::arg("distances"),
      py::arg("n_threads"));

  m.def(
      "kmeans_update",
      [](const py::object& x, const py::object& labels, const py::object& sample_weight,
         const py::object& sums, const py::object& counts, int n_threads) {
        with_kmeans_update(Device::cpu, x, labels, sample_weight, sums, counts,
                           [&](KmeansUpdateParams& p, int) {
                             p.n_threads = n_threads;
                             cpu::kmeans_update(p);
                           });
      },
      py::kw_only(), py::arg("x"), py::arg("labels"), py::arg("sample_weight"), py::arg("sums"),
      py::arg("counts"), py::arg("n_threads"));
}

}  // namespace
}  // namespace ktfast
