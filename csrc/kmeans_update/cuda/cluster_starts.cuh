// Computes where the entries of each cluster begin from the number of entries per cluster. The
// kernels that sort rows by cluster share this header.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <limits>

#include "common/check.h"

namespace ktfast::cuda {

constexpr int kStartThreads = 1024;

// Every lane returns the sum of its value and the values of the lanes below.
__device__ inline long long warp_scan(long long value, int lane) {
  for (int step = 1; step < 32; step *= 2) {
    const long long lower = __shfl_up_sync(0xFFFFFFFFu, value, step);
    if (lane >= step) value += lower;
  }
  return value;
}

// starts[i + 1] holds the number of entries of cluster i. One block replaces the numbers by the
// positions where the entries of each cluster begin, 1,024 clusters at a time.
static __global__ void __launch_bounds__(kStartThreads)
    start_kernel(int64_t* starts, int64_t n_clusters) {
  __shared__ long long totals[kStartThreads / 32];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  long long before = 0;
  if (threadIdx.x == 0) starts[0] = 0;
  for (int64_t first = 1; first <= n_clusters; first += kStartThreads) {
    const int64_t k = first + threadIdx.x;
    long long sum = warp_scan(k <= n_clusters ? starts[k] : 0, lane);
    if (lane == 31) totals[warp] = sum;
    __syncthreads();
    if (warp == 0) totals[lane] = warp_scan(totals[lane], lane);
    __syncthreads();
    if (warp > 0) sum += totals[warp - 1];
    if (k <= n_clusters) starts[k] = before + sum;
    before += totals[kStartThreads / 32 - 1];
    __syncthreads();  // every thread has read the totals
  }
}

// Integer additions give the same result in any order.
__device__ inline long long add_integer(int64_t* to, int64_t value) {
  return static_cast<long long>(
      atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value)));
}

__device__ inline bool in_range(int32_t label, int64_t n_clusters) {
  return label >= 0 && label < n_clusters;
}

inline unsigned grid_size(int64_t work, int64_t per_block) {
  const int64_t blocks = (work + per_block - 1) / per_block;
  KTFAST_CHECK(blocks <= std::numeric_limits<int32_t>::max(), "more work than one launch can take");
  return static_cast<unsigned>(blocks > 0 ? blocks : 1);
}

// The number of blocks along the features, the second dimension of a grid.
inline unsigned feature_blocks(int64_t n_features, int64_t per_block) {
  const unsigned blocks = grid_size(n_features, per_block);
  KTFAST_CHECK(blocks <= 65535, "x has more features than one launch can take");
  return blocks;
}

}  // namespace ktfast::cuda
