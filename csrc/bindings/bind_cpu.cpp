// The module ktfast._cpu: one block per op, no logic. It never loads the CUDA runtime.
#include <pybind11/pybind11.h>

#include "bindings/bind_jigsaw_tiles.h"
#include "bindings/bind_kmeans.h"
#include "bindings/bind_machine_peak.h"
#include "common/cpu_features.h"

namespace ktfast {
namespace {

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "CPU kernels; arrays are passed through DLPack, outputs are allocated by the caller.";

  m.def(
      "simd_level", [] { return simd_name(simd_level()); },
      "The instruction-set level the kernels use: scalar, avx2 or avx512.");

  m.def("jigsaw_tiles_workspace_size", &cpu::jigsaw_tiles_workspace_size,
        "Length of jigsaw_tiles's workspace, in int16.", py::kw_only(), py::arg("tile_size"),
        py::arg("n_threads"));

  m.def("jigsaw_tiles", [](const py::kwargs& a) {
    with_jigsaw_tiles_workspace(a, [](const JigsawTilesParams& p) { cpu::jigsaw_tiles(p); });
  });

  m.def("kmeans_prepared_size", &cpu::kmeans_prepared_size,
        "Length of kmeans_prepare's output, in float32.", py::kw_only(), py::arg("n_clusters"),
        py::arg("n_features"));

  m.def(
      "kmeans_prepare",
      [](const py::object& centers, const py::object& prepared, int n_threads) {
        with_kmeans_prepare(Device::cpu, centers, prepared, cpu::kmeans_prepared_size,
                            [&](KmeansPrepareParams& p, int) {
                              p.n_threads = n_threads;
                              cpu::kmeans_prepare(p);
                            });
      },
      py::kw_only(), py::arg("centers"), py::arg("prepared"), py::arg("n_threads"));

  m.def("kmeans_assign_workspace_size", &cpu::kmeans_assign_workspace_size,
        "Length of kmeans_assign's workspace, in float32.", py::kw_only(), py::arg("n_features"),
        py::arg("n_threads"));

  m.def(
      "kmeans_assign",
      [](const py::object& x, const py::object& centers, const py::object& prepared,
         const py::object& workspace, const py::object& labels, const py::object& distances,
         int n_threads) {
        const auto workspace_ = contiguous<float>(workspace, "workspace", Device::cpu, {-1});
        with_kmeans_assign(Device::cpu, x, centers, prepared, labels, distances,
                           cpu::kmeans_prepared_size, [&](KmeansAssignParams& p, int) {
                             p.n_threads = n_threads;
                             p.workspace = workspace_.data();
                             p.workspace_size = workspace_.size();
                             cpu::kmeans_assign(p);
                           });
      },
      py::kw_only(), py::arg("x"), py::arg("centers"), py::arg("prepared"), py::arg("workspace"),
      py::arg("labels"), py::arg("distances"), py::arg("n_threads"));

  m.def("kmeans_update_workspace_size", &cpu::kmeans_update_workspace_size,
        "Length of kmeans_update's workspace, in int64.", py::kw_only(), py::arg("n_rows"),
        py::arg("n_clusters"));

  m.def(
      "kmeans_update",
      [](const py::object& x, const py::object& labels, const py::object& sample_weight,
         const py::object& workspace, const py::object& sums, const py::object& counts,
         int n_threads) {
        with_kmeans_update(Device::cpu, x, labels, sample_weight, workspace, sums, counts,
                           cpu::kmeans_update_workspace_size, [&](KmeansUpdateParams& p, int) {
                             p.n_threads = n_threads;
                             cpu::kmeans_update(p);
                           });
      },
      py::kw_only(), py::arg("x"), py::arg("labels"), py::arg("sample_weight"),
      py::arg("workspace"), py::arg("sums"), py::arg("counts"), py::arg("n_threads"));

  m.def(
      "machine_peak",
      [](const std::string& kind, double seconds, int n_threads) {
        const MachinePeakParams p{peak_kind(kind), seconds, n_threads};
        const py::gil_scoped_release release;
        return cpu::machine_peak(p);
      },
      "Operations (or copied bytes) a second; 0 where the processor lacks the instructions.",
      py::kw_only(), py::arg("kind"), py::arg("seconds"), py::arg("n_threads"));
}

}  // namespace
}  // namespace ktfast
