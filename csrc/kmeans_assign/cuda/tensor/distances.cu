// Exact distances between rows and given centres, and how far centres have moved. Each warp
// computes one distance.
#include <cstring>
#include <limits>
#include <type_traits>

#include "common/check.h"
#include "common/cuda_launch.cuh"
#include "kmeans_assign/cuda/exact_distance.cuh"
#include "kmeans_assign/cuda/tensor/code_tile.h"
#include "kmeans_assign/kmeans_tensor.h"

namespace ktfast::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

__global__ void __launch_bounds__(kThreads) moves_kernel(const KmeansTensorMovesParams p) {
  const int64_t k = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (k >= p.n_clusters) return;
  const int64_t at = k * p.n_features;
  const double square =
      exact_distance(p.centers + at, p.previous + at, p.n_features, lane) * (1 + 2e-12);
  if (lane != 0) return;
  const double move = sqrt(square);
  p.moves[k] = move;
  // Numbers that are not negative have the order of their bits. NaN is above all others.
  unsigned long long bits;
  memcpy(&bits, &move, sizeof bits);
  atomicMax(reinterpret_cast<unsigned long long*>(p.moves + p.n_clusters), bits);
}

template <class T>
__global__ void __launch_bounds__(kThreads) distances_kernel(const KmeansTensorDistancesParams p) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (row >= p.n_rows) return;
  const int64_t d = p.n_features;
  const int64_t label = p.labels == nullptr ? 0 : p.labels[row];
  const double distance =
      exact_distance(static_cast<const T*>(p.x) + row * d, p.centers + label * d, d, lane);
  if (lane == 0) p.distances[row] = distance;
}

}  // namespace

void kmeans_tensor_moves(const KmeansTensorMovesParams& p, CUstream_st* stream) {
  KTFAST_CUDA_CHECK(cudaMemsetAsync(p.moves + p.n_clusters, 0, sizeof(double), stream));
  if (p.n_clusters == 0) return;
  launch(moves_kernel, static_cast<unsigned>(ceil_divide(p.n_clusters, kWarps)), kThreads, 0,
         stream, p);
}

void kmeans_tensor_distances(const KmeansTensorDistancesParams& p, CUstream_st* stream) {
  if (p.n_rows == 0) return;
  KTFAST_CHECK(p.n_clusters > 0, "centers must hold at least one row");
  KTFAST_CHECK(p.n_rows < std::numeric_limits<int32_t>::max(), "more rows than one call can take");
  with_element(p.x_type, [&](auto* type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
    launch(distances_kernel<T>, static_cast<unsigned>(ceil_divide(p.n_rows, kWarps)), kThreads, 0,
           stream, p);
  });
}

}  // namespace ktfast::cuda
