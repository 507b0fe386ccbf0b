#include "kmeans_update/kmeans_update.h"

#include "common/check.h"
#include "common/cuda_launch.cuh"
#include "kmeans_update/cuda/cluster_starts.cuh"

namespace ktfast::cuda {
namespace {

// A stable counting sort. A warp sorts a chunk of rows. A chunk has at least kChunkRows rows and at
// least k rows, so that the table of counts [chunks, k] has at most n entries or one row.
constexpr int64_t kChunkRows = 4096;
constexpr int kThreads = 256;
constexpr int kSumThreads = 128;  // each thread adds one feature of a cluster's rows in order
constexpr unsigned kFullWarp = 0xFFFFFFFFu;

struct Layout {
  int64_t chunk_rows;
  int64_t n_chunks;
  int64_t starts;  // [k + 1]: where each cluster's rows begin in the order
  int64_t table;   // [chunks, k]: counts, then each chunk's next place within the cluster
  int64_t order;   // [n]: rows sorted by label, rows of a label in their order
  int64_t size;

  __host__ __device__ Layout(int64_t n_rows, int64_t n_clusters)
      : chunk_rows(n_clusters > kChunkRows ? n_clusters : kChunkRows),
        n_chunks((n_rows + chunk_rows - 1) / chunk_rows),
        starts(0),
        table(n_clusters + 1),
        order(table + n_chunks * n_clusters),
        size(order + n_rows) {}
};

__global__ void __launch_bounds__(kThreads) count_kernel(const KmeansUpdateParams p) {
  const Layout at(p.n_rows, p.n_clusters);
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= p.n_rows || !in_range(p.labels[row], p.n_clusters)) return;
  add_integer(p.workspace + at.table + row / at.chunk_rows * p.n_clusters + p.labels[row], 1);
}

// Each thread replaces the counts of one cluster by each chunk's first position within the cluster,
// and writes the total to starts[k + 1].
__global__ void __launch_bounds__(kThreads) place_kernel(const KmeansUpdateParams p) {
  const Layout at(p.n_rows, p.n_clusters);
  const int64_t k = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (k >= p.n_clusters) return;
  int64_t total = 0;
  for (int64_t chunk = 0; chunk < at.n_chunks; ++chunk) {
    int64_t& entry = p.workspace[at.table + chunk * p.n_clusters + k];
    const int64_t count = entry;
    entry = total;
    total += count;
  }
  p.workspace[at.starts + k + 1] = total;
}

// A warp sorts 32 rows of its chunk at a time. Lanes with the same label keep the order of the
// rows.
__global__ void __launch_bounds__(32) scatter_kernel(const KmeansUpdateParams p) {
  const Layout at(p.n_rows, p.n_clusters);
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t first = int64_t{blockIdx.x} * at.chunk_rows;
  const int64_t last = first + at.chunk_rows < p.n_rows ? first + at.chunk_rows : p.n_rows;
  int64_t* places = p.workspace + at.table + int64_t{blockIdx.x} * p.n_clusters;
  for (int64_t start = first; start < last; start += 32) {
    const int64_t row = start + lane;
    const int32_t label = row < last ? p.labels[row] : -1;
    const unsigned peers = __match_any_sync(kFullWarp, label);
    const int rank = __popc(peers & ((1u << lane) - 1u));
    const bool valid = in_range(label, p.n_clusters);
    int64_t place = 0;
    if (valid) {
      place = places[label];
      p.workspace[at.order + p.workspace[at.starts + label] + place + rank] = row;
    }
    __syncwarp();
    if (valid && rank == 0) places[label] = place + __popc(peers);
    __syncwarp();
  }
}

// The grid has clusters by groups of features. The order of additions is that of the CPU, and no
// multiply-adds are fused.
template <class T>
__global__ void __launch_bounds__(kSumThreads) sum_kernel(const KmeansUpdateParams p) {
  const Layout at(p.n_rows, p.n_clusters);
  const int64_t k = blockIdx.x;
  const int64_t feature = int64_t{blockIdx.y} * kSumThreads + threadIdx.x;
  const int64_t* order = p.workspace + at.order;
  const int64_t first = p.workspace[at.starts + k];
  const int64_t last = p.workspace[at.starts + k + 1];
  if (feature == 0) {
    double count = p.counts[k];
    for (int64_t i = first; i < last; ++i) {
      count = __dadd_rn(count, p.sample_weight == nullptr ? 1.0 : p.sample_weight[order[i]]);
    }
    p.counts[k] = count;
  }
  if (feature >= p.n_features) return;
  const T* x = static_cast<const T*>(p.x) + feature;
  double sum = p.sums[k * p.n_features + feature];
#pragma unroll 4
  for (int64_t i = first; i < last; ++i) {
    const int64_t row = order[i];
    double value = to_double(x[row * p.n_features]);
    if (p.sample_weight != nullptr) value = __dmul_rn(p.sample_weight[row], value);
    sum = __dadd_rn(sum, value);
  }
  p.sums[k * p.n_features + feature] = sum;
}

}  // namespace

int64_t kmeans_update_workspace_size(int64_t n_rows, int64_t n_clusters) {
  return Layout(n_rows, n_clusters).size;
}

void kmeans_update(const KmeansUpdateParams& p, CUstream_st* stream) {
  if (p.n_rows == 0) return;
  KTFAST_CHECK(p.n_clusters > 0, "sums must hold at least one row");
  const Layout at(p.n_rows, p.n_clusters);
  const unsigned groups = feature_blocks(p.n_features, kSumThreads);
  KTFAST_CUDA_CHECK(
      cudaMemsetAsync(p.workspace + at.table, 0,
                      static_cast<size_t>(at.n_chunks * p.n_clusters) * sizeof(int64_t), stream));
  launch(count_kernel, grid_size(p.n_rows, kThreads), kThreads, 0, stream, p);
  launch(place_kernel, grid_size(p.n_clusters, kThreads), kThreads, 0, stream, p);
  launch(start_kernel, 1, kStartThreads, 0, stream, p.workspace + at.starts, p.n_clusters);
  launch(scatter_kernel, grid_size(at.n_chunks, 1), 32, 0, stream, p);
  with_element(p.x_type, [&](auto* type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
    const dim3 grid(grid_size(p.n_clusters, 1), groups);
    launch(sum_kernel<T>, grid, kSumThreads, 0, stream, p);
  });
}

}  // namespace ktfast::cuda
