// The module ktfast.native._cpu, with the functions of every op. The module never loads the CUDA
// runtime.
#include <pybind11/pybind11.h>

#include "bindings/bind_image_resize.h"
#include "bindings/bind_jigsaw_tiles.h"
#include "bindings/bind_kmeans_cpu.h"
#include "bindings/bind_kmeans_sums.h"
#include "bindings/bind_machine_peak.h"
#include "common/cpu_features.h"
#include "common/parallel.h"
#include "common/x86_features.h"

namespace ktfast {
namespace {

// Without a GIL the functions may run side by side: no function keeps state, but for the threads of
// common/parallel.h, which a mutex guards.
PYBIND11_MODULE(_cpu, m, py::mod_gil_not_used()) {
  m.doc() = "CPU kernels; arrays are passed through DLPack, outputs are allocated by the caller.";

  m.def(
      "simd_level", [] { return simd_name(simd_level()); },
      "The instruction-set level that the kernels use: scalar, avx2, avx512 or amx.");

  m.def(
      "x86_features",
      [] {
        py::dict found;
        for (const auto& [name, there] : x86_features()) found[py::str(name)] = there;
        return found;
      },
      "Whether the processor has each extension that the kernels ask for, by Linux's names.");

  m.def("thread_limit", &cpu::thread_limit,
        "Most threads that the caller may ask for, as threadpoolctl set it; 0: no limit.");

  m.def("jigsaw_tiles_workspace_size", &cpu::jigsaw_tiles_workspace_size,
        "Length of jigsaw_tiles's workspace, in int16.", py::kw_only(), py::arg("tile_size"),
        py::arg("n_threads"));

  m.def("jigsaw_tiles", [](const py::kwargs& a) {
    with_jigsaw_tiles_workspace(a, [](const JigsawTilesParams& p) { cpu::jigsaw_tiles(p); });
  });

  m.def("image_resize_is_fast", &cpu::image_resize_is_fast,
        "Whether image_resize has a kernel for this processor.");
  m.def("image_resize", &bind_image_resize);

  export_kmeans_constants(m);
  m.def("kmeans_assign_costs", &kmeans_assign_costs,
        "Clock cycles that the parts of an assignment pass take, by name, on this processor.",
        py::kw_only(), py::arg("code"));
  m.def(
      "kmeans_prepared_size",
      [](int64_t n_clusters, int64_t n_features, int64_t n_coordinates, const std::string& code) {
        return cpu::kmeans_prepared_size(n_clusters, n_features, n_coordinates, code_type(code));
      },
      "Length of kmeans_prepare's output, in float32.", py::kw_only(), py::arg("n_clusters"),
      py::arg("n_features"), py::arg("n_coordinates"), py::arg("code"));
  m.def("kmeans_assign_workspace_size", &cpu::kmeans_assign_workspace_size,
        "Length of the workspace of kmeans_encode, _assign and _reassign, in float32.",
        py::kw_only(), py::arg("n_features"), py::arg("n_coordinates"), py::arg("n_threads"));
  m.def(
      "kmeans_code_bytes",
      [](int64_t n_features, int64_t n_coordinates, const std::string& code) {
        return cpu::kmeans_code_bytes(n_features, n_coordinates, code_type(code));
      },
      "Bytes of a row's code.", py::kw_only(), py::arg("n_features"), py::arg("n_coordinates"),
      py::arg("code"));
  m.def(
      "kmeans_has_fast",
      [](const std::string& code) { return cpu::kmeans_has_fast(code_type(code)); },
      "Whether this processor has an instruction that multiplies codes of this type.",
      py::kw_only(), py::arg("code"));
  m.def("kmeans_is_few", &cpu::kmeans_is_few,
        "Whether kmeans_assign scores every centre in float32 instead of screening.", py::kw_only(),
        py::arg("n_clusters"), py::arg("n_features"));
  m.def("kmeans_prepare", &bind_kmeans_prepare);
  m.def("kmeans_encode", &bind_kmeans_encode);
  m.def("kmeans_assign", &bind_kmeans_assign);
  m.def("kmeans_distances", &bind_kmeans_distances);
  m.def("kmeans_snapshot", &bind_kmeans_snapshot);
  m.def("kmeans_drift", &bind_kmeans_drift);
  m.def("kmeans_reassign", &bind_kmeans_reassign);

  m.def("kmeans_move_workspace_size", &cpu::kmeans_move_workspace_size,
        "Length of kmeans_move's workspace, in int64.", py::kw_only(), py::arg("n_rows"),
        py::arg("n_clusters"));
  m.def("kmeans_move", [](const py::kwargs& given) {
    Arguments a(given);
    const int n_threads = a.value<int>("n_threads");
    with_kmeans_move(a, cpu::kmeans_move_workspace_size, [&](KmeansMoveParams& p, int) {
      p.n_threads = n_threads;
      cpu::kmeans_move(p);
    });
  });
  m.def("kmeans_ranges", [](const py::kwargs& given) {
    Arguments a(given);
    const int n_threads = a.value<int>("n_threads");
    with_kmeans_ranges(a, [&](KmeansRangeParams& p, int) {
      p.n_threads = n_threads;
      cpu::kmeans_ranges(p);
    });
  });
  m.def("kmeans_means", [](const py::kwargs& given) {
    Arguments a(given);
    const int n_threads = a.value<int>("n_threads");
    with_kmeans_means(a, [&](KmeansMeansParams& p, int) {
      p.n_threads = n_threads;
      cpu::kmeans_means(p);
    });
  });
  m.def("kmeans_totals_workspace_size", &cpu::kmeans_totals_workspace_size,
        "Length of kmeans_totals's workspace, in float64.", py::kw_only(), py::arg("n_rows"));
  m.def("kmeans_totals", [](const py::kwargs& given) {
    Arguments a(given);
    const int n_threads = a.value<int>("n_threads");
    with_kmeans_totals(a, cpu::kmeans_totals_workspace_size, [&](KmeansTotalsParams& p, int) {
      p.n_threads = n_threads;
      cpu::kmeans_totals(p);
    });
  });

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
      "Operations (or copied bytes) per second; 0 if the processor lacks the instructions.",
      py::kw_only(), py::arg("kind"), py::arg("seconds"), py::arg("n_threads"));
}

}  // namespace
}  // namespace ktfast
