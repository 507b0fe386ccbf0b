#include "kmeans_update/kmeans_update.h"

#include <cstring>

#include "common/check.h"
#include "common/cuda_launch.cuh"
#include "kmeans_update/cuda/cluster_starts.cuh"
#include "kmeans_update/sum_math.h"

namespace ktfast::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
// A block adds slices of kSliceEntries entries, one feature per thread. A cluster with many rows
// takes several slices. The grid has at most kMoveBlocks blocks along the slices, because few rows
// change their cluster in most iterations.
constexpr int kMoveThreads = 128;
constexpr int kSliceEntries = 128;
constexpr int64_t kMoveBlocks = 4096;
constexpr int kAhead = 8;  // rows that a thread reads before it adds the first
constexpr int64_t kRangeRows = 1024;

// Rows that leave and join clusters, sorted by cluster, in any order within a cluster.
struct Layout {
  int64_t starts;  // [k + 1]: where each cluster's entries begin in the order
  int64_t taken;   // [k]: how many of the cluster's entries have been placed
  int64_t order;   // [2 n]: 2 row, or 2 row + 1 where the row leaves
  int64_t size;

  __host__ __device__ Layout(int64_t n_rows, int64_t n_clusters)
      : starts(0), taken(n_clusters + 1), order(taken + n_clusters), size(order + 2 * n_rows) {}
};

// Calls visit(cluster, entry) for the cluster that the thread's row leaves and for the one it
// joins.
template <class Visit>
__device__ void visit_changes(const KmeansMoveParams& p, Visit visit) {
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= p.n_rows) return;
  const int32_t after = p.after[row];
  if (p.before != nullptr) {
    const int32_t before = p.before[row];
    if (before == after) return;
    if (in_range(before, p.n_clusters)) visit(before, 2 * row + 1);
  }
  if (in_range(after, p.n_clusters)) visit(after, 2 * row);
}

__global__ void __launch_bounds__(kThreads) count_changes_kernel(const KmeansMoveParams p) {
  const Layout at(p.n_rows, p.n_clusters);
  visit_changes(p, [&](int32_t cluster, int64_t entry) {
    add_integer(p.workspace + at.starts + cluster + 1, 1);
    add_integer(p.counts + cluster, entry % 2 == 0 ? 1 : -1);
  });
}

__global__ void __launch_bounds__(kThreads) place_changes_kernel(const KmeansMoveParams p) {
  const Layout at(p.n_rows, p.n_clusters);
  visit_changes(p, [&](int32_t cluster, int64_t entry) {
    const int64_t place = add_integer(p.workspace + at.taken + cluster, 1);
    p.workspace[at.order + p.workspace[at.starts + cluster] + place] = entry;
  });
}

struct Slice {
  int64_t entry[kSliceEntries];
  int32_t cluster[kSliceEntries];
};

// The value of a feature of an entry in fixed point. Without a second limb, low is zero.
template <class T, bool kTwoLimbs>
__device__ Limbs value_of(const KmeansMoveParams& p, const T* x, int64_t entry, double scale) {
  double value = to_double(x[entry / 2 * p.n_features]);
  if (kTwoLimbs && p.sample_weight != nullptr) {
    value = multiply(p.sample_weight[entry / 2], value);
  }
  if (entry % 2 != 0) value = -value;
  if (kTwoLimbs) return limbs_of(value, scale);
  return {fixed_point(value, scale), 0};
}

template <bool kTwoLimbs>
__device__ void add_sum(const KmeansMoveParams& p, int64_t at, Limbs& sum) {
  add_integer(p.sums + at, sum.high);
  if (kTwoLimbs) add_integer(p.low + at, sum.low);
  sum = {0, 0};
}

// A thread adds its feature of a slice's rows in registers, and adds the registers to the sums at
// the end of each cluster.
template <class T, bool kTwoLimbs>
__device__ void add_slice(const KmeansMoveParams& p, const Slice& slice, int length,
                          int64_t feature, double scale) {
  const T* x = static_cast<const T*>(p.x) + feature;
  int32_t cluster = slice.cluster[0];
  Limbs sum{0, 0};
  for (int start = 0; start < length; start += kAhead) {
    Limbs value[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      value[i] = {0, 0};
      if (start + i >= length) continue;
      value[i] = value_of<T, kTwoLimbs>(p, x, slice.entry[start + i], scale);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (start + i >= length) continue;
      if (slice.cluster[start + i] != cluster) {
        add_sum<kTwoLimbs>(p, cluster * p.n_features + feature, sum);
        cluster = slice.cluster[start + i];
      }
      sum.high += value[i].high;
      if (kTwoLimbs) sum.low += value[i].low;
    }
  }
  add_sum<kTwoLimbs>(p, cluster * p.n_features + feature, sum);
}

__global__ void __launch_bounds__(kThreads) carry_kernel(const KmeansMoveParams p) {
  const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at < p.n_clusters * p.n_features) carry(p.sums[at], p.low[at]);
}

// The grid has slices by groups of features.
template <class T, bool kTwoLimbs>
__global__ void __launch_bounds__(kMoveThreads) add_changes_kernel(const KmeansMoveParams p) {
  __shared__ Slice slice;
  const Layout at(p.n_rows, p.n_clusters);
  const int64_t n_entries = p.workspace[at.starts + p.n_clusters];
  const int64_t feature = int64_t{blockIdx.y} * kMoveThreads + threadIdx.x;
  const bool owns = feature < p.n_features;
  const double scale = owns ? p.scale[feature] : 0;
  for (int64_t first = int64_t{blockIdx.x} * kSliceEntries; first < n_entries;
       first += int64_t{gridDim.x} * kSliceEntries) {
    const int64_t left = n_entries - first;
    const int length = left < kSliceEntries ? static_cast<int>(left) : kSliceEntries;
    __syncthreads();  // every thread has added the previous slice
    for (int i = static_cast<int>(threadIdx.x); i < length; i += kMoveThreads) {
      const int64_t entry = p.workspace[at.order + first + i];
      slice.entry[i] = entry;
      slice.cluster[i] = entry % 2 == 0 ? p.after[entry / 2] : p.before[entry / 2];
    }
    __syncthreads();
    if (owns) add_slice<T, kTwoLimbs>(p, slice, length, feature, scale);
  }
}

// The grid has slices of rows by groups of features. Each thread reads one feature.
template <class T>
__global__ void __launch_bounds__(kMoveThreads) range_kernel(const KmeansRangeParams p) {
  const int64_t feature = int64_t{blockIdx.y} * kMoveThreads + threadIdx.x;
  if (feature >= p.n_features) return;
  const int64_t first = int64_t{blockIdx.x} * kRangeRows;
  const int64_t last = first + kRangeRows < p.n_rows ? first + kRangeRows : p.n_rows;
  const T* x = static_cast<const T*>(p.x) + feature;
  double largest = 0;
#pragma unroll 4
  for (int64_t row = first; row < last; ++row) {
    const double size = magnitude(to_double(x[row * p.n_features]));
    largest = size > largest ? size : largest;
  }
  // Non-negative doubles have the order of their bits.
  long long bits;
  memcpy(&bits, &largest, sizeof bits);
  atomicMax(reinterpret_cast<long long*>(p.largest + feature), bits);
}

__device__ double warp_total(double value) {
  constexpr unsigned kFullWarp = 0xFFFFFFFFu;
  for (int width = kShiftLanes / 2; width > 0; width /= 2) {
    value = add(value, __shfl_down_sync(kFullWarp, value, width));
  }
  return value;
}

// Each warp computes one centre.
__global__ void __launch_bounds__(kThreads) means_kernel(const KmeansMeansParams p) {
  const int64_t k = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (k >= p.n_clusters) return;
  const int lane = static_cast<int>(threadIdx.x) % kShiftLanes;
  const double weight = p.weights == nullptr ? static_cast<double>(p.counts[k]) : p.weights[k];
  double shift = 0;
  for (int64_t f = lane; f < p.n_features; f += kShiftLanes) {
    const int64_t at = k * p.n_features + f;
    const double before = p.previous[at];
    const double sum =
        p.low == nullptr ? static_cast<double>(p.sums[at]) : sum_of(p.sums[at], p.low[at]);
    const double center = mean_of(sum, weight, p.step[f], before, p.narrow);
    p.centers[at] = center;
    shift = add(shift, squared_move(center, before));
  }
  shift = warp_total(shift);
  if (lane == 0) p.shifts[k] = shift;
}

// Each warp computes the cost of one cluster. A term has the rounding errors of a few operations,
// and d / 32 + 5 additions follow; `errors` allows for twice as many.
__global__ void __launch_bounds__(kThreads) costs_kernel(const KmeansCostsParams p) {
  const int64_t k = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (k >= p.n_clusters) return;
  const int lane = static_cast<int>(threadIdx.x) % kShiftLanes;
  const auto count = static_cast<double>(p.counts[k]);
  double cost = 0;
  double size = 0;     // of the numbers that are added up
  double rounded = 0;  // the rounding of the rows
  for (int64_t f = lane; f < p.n_features; f += kShiftLanes) {
    const int64_t at = k * p.n_features + f;
    const double sum =
        p.low == nullptr ? static_cast<double>(p.sums[at]) : sum_of(p.sums[at], p.low[at]);
    const double value = multiply(sum, p.step[f]);
    const double center = add(p.centers[at], -p.mean[f]);
    const double origin = multiply(count, p.mean[f]);
    const double own = multiply(count, center);
    cost = add(cost, multiply(center, add(own, multiply(-2.0, add(value, -origin)))));
    size += fabs(center) * (fabs(own) + 2 * (fabs(value) + fabs(origin)));
    rounded += fabs(center) * p.step[f] * count;
  }
  cost = warp_total(cost);
  size = warp_total(size);
  rounded = warp_total(rounded);
  if (lane != 0) return;
  const double steps = static_cast<double>(p.n_features) / kShiftLanes + 32;
  p.costs[k] = cost;
  p.errors[k] = rounded * 1.001 + 2.3e-16 * steps * size;
}

// Adds the threads' pairs as a tree. Thread 0 gets the sums.
__device__ void block_sum(double (&shared)[2][kTotalLanes], double& first, double& second) {
  const int lane = static_cast<int>(threadIdx.x);
  shared[0][lane] = first;
  shared[1][lane] = second;
  for (int width = kTotalLanes / 2; width > 0; width /= 2) {
    __syncthreads();
    if (lane < width) {
      for (int i = 0; i < 2; ++i) shared[i][lane] = add(shared[i][lane], shared[i][lane + width]);
    }
  }
  if (lane != 0) return;
  first = shared[0][0];
  second = shared[1][0];
}

// Each block adds 4,096 rows.
__global__ void __launch_bounds__(kTotalLanes) part_totals_kernel(const KmeansTotalsParams p) {
  __shared__ double shared[2][kTotalLanes];
  const int64_t first = int64_t{blockIdx.x} * kTotalRows;
  const int64_t last = first + kTotalRows < p.n_rows ? first + kTotalRows : p.n_rows;
  double sum = 0;
  double moved = 0;
  for (int64_t row = first + threadIdx.x; row < last; row += kTotalLanes) {
    const double weight = p.sample_weight == nullptr ? 1.0 : p.sample_weight[row];
    sum = add(sum, multiply(weight, p.distances[row]));
    if (p.before != nullptr && p.before[row] != p.after[row]) moved += 1;
  }
  block_sum(shared, sum, moved);
  if (threadIdx.x != 0) return;
  p.workspace[blockIdx.x] = sum;
  p.workspace[gridDim.x + blockIdx.x] = moved;
}

__global__ void __launch_bounds__(kTotalLanes)
    totals_kernel(const KmeansTotalsParams p, int64_t n_parts) {
  __shared__ double shared[2][kTotalLanes];
  double sum = 0;
  double moved = 0;
  for (int64_t part = threadIdx.x; part < n_parts; part += kTotalLanes) {
    sum = add(sum, p.workspace[part]);
    moved += p.workspace[n_parts + part];
  }
  block_sum(shared, sum, moved);
  if (threadIdx.x != 0) return;
  p.totals[0] = sum;
  p.totals[1] = moved;
}

}  // namespace

int64_t kmeans_move_workspace_size(int64_t n_rows, int64_t n_clusters) {
  return Layout(n_rows, n_clusters).size;
}

void kmeans_move(const KmeansMoveParams& p, CUstream_st* stream) {
  if (p.n_rows == 0) return;
  KTFAST_CHECK(p.n_clusters > 0, "sums must hold at least one row");
  check_limbs(p);
  const Layout at(p.n_rows, p.n_clusters);
  const unsigned groups = feature_blocks(p.n_features, kMoveThreads);
  KTFAST_CUDA_CHECK(
      cudaMemsetAsync(p.workspace, 0, static_cast<size_t>(at.order) * sizeof(int64_t), stream));
  const unsigned row_blocks = grid_size(p.n_rows, kThreads);
  launch(count_changes_kernel, row_blocks, kThreads, 0, stream, p);
  launch(start_kernel, 1, kStartThreads, 0, stream, p.workspace + at.starts, p.n_clusters);
  launch(place_changes_kernel, row_blocks, kThreads, 0, stream, p);
  const int64_t slices = (2 * p.n_rows + kSliceEntries - 1) / kSliceEntries;
  const dim3 grid(grid_size(slices < kMoveBlocks ? slices : kMoveBlocks, 1), groups);
  with_element(p.x_type, [&](auto* type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
    const auto kernel =
        p.low == nullptr ? add_changes_kernel<T, false> : add_changes_kernel<T, true>;
    launch(kernel, grid, kMoveThreads, 0, stream, p);
  });
  if (p.low != nullptr) {
    launch(carry_kernel, grid_size(p.n_clusters * p.n_features, kThreads), kThreads, 0, stream, p);
  }
}

void kmeans_ranges(const KmeansRangeParams& p, CUstream_st* stream) {
  if (p.n_rows == 0 || p.n_features == 0) return;
  const dim3 grid(grid_size(p.n_rows, kRangeRows), feature_blocks(p.n_features, kMoveThreads));
  with_element(p.x_type, [&](auto* type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
    launch(range_kernel<T>, grid, kMoveThreads, 0, stream, p);
  });
}

void kmeans_means(const KmeansMeansParams& p, CUstream_st* stream) {
  if (p.n_clusters == 0) return;
  launch(means_kernel, grid_size(p.n_clusters, kWarps), kThreads, 0, stream, p);
}

void kmeans_costs(const KmeansCostsParams& p, CUstream_st* stream) {
  if (p.n_clusters == 0) return;
  launch(costs_kernel, grid_size(p.n_clusters, kWarps), kThreads, 0, stream, p);
}

int64_t kmeans_totals_workspace_size(int64_t n_rows) {
  return 2 * ((n_rows + kTotalRows - 1) / kTotalRows);
}

void kmeans_totals(const KmeansTotalsParams& p, CUstream_st* stream) {
  const int64_t n_parts = (p.n_rows + kTotalRows - 1) / kTotalRows;
  if (n_parts > 0) {
    launch(part_totals_kernel, grid_size(n_parts, 1), kTotalLanes, 0, stream, p);
  }
  launch(totals_kernel, 1, kTotalLanes, 0, stream, p, n_parts);
}

}  // namespace ktfast::cuda
