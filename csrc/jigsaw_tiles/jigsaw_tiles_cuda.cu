#include "jigsaw_tiles/jigsaw_tiles.h"

#include "common/cuda_check.cuh"
#include "jigsaw_tiles/tile_choices.h"
#include "jigsaw_tiles/tile_lane.h"
#include "jigsaw_tiles/tile_math.h"

namespace ktfast::cuda {
namespace {

// A block owns one tile: 256 threads read its pixels once, keep the numerators in shared memory
// (6 t^2 bytes: 24 KB at t = 64) and write the outputs from there. Tiles above kMaxStagedSize,
// whose numerators exceed the 48 KB every device grants, are read twice instead.
//
// As compiled by nvcc 13.0 (registers of the staged / the other kernel, no spills, no stack):
//   sm_75 64 / 64   sm_80 42 / 58   sm_90 44 / 48   sm_100 48 / 60   sm_120 48 / 54
// so at t = 64 shared memory allows 2 blocks a multiprocessor on sm_75 (64 KB) and registers 5 on
// sm_90. The choice of 256 threads follows from that; it has not been timed.
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int32_t kMaxStagedSize = 90;
constexpr int kChoiceThreads = 64;  // a thread owns one row of the batch

__global__ void __launch_bounds__(kChoiceThreads) choose_kernel(const JigsawTilesParams p) {
  const int64_t row = int64_t{blockIdx.x} * kChoiceThreads + threadIdx.x;
  if (row < p.batch) choose_row(p, row);
}

// The sum over the block, on every thread. `scratch` holds kWarps numbers and is free again on
// return.
__device__ __forceinline__ int64_t block_sum(int64_t value, int64_t* scratch) {
  for (int step = 16; step > 0; step /= 2) {
    value += __shfl_down_sync(0xFFFFFFFFu, static_cast<long long>(value), step);
  }
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  int64_t total = 0;
  for (int warp = 0; warp < kWarps; ++warp) total += scratch[warp];
  __syncthreads();
  return total;
}

// Statistics of a whole tile need the channels' totals only, one reduction in place of three.
__device__ __forceinline__ TileSums block_sums(const TileSums& mine, TileStatistics statistics,
                                               int64_t* scratch) {
  TileSums all;
  if (statistics == TileStatistics::channel) {
    for (int c = 0; c < 3; ++c) {
      all.sum[c] = block_sum(mine.sum[c], scratch);
      all.square[c] = block_sum(mine.square[c], scratch);
    }
  } else {
    all.sum[0] = block_sum(mine.sum[0] + mine.sum[1] + mine.sum[2], scratch);
    all.square[0] = block_sum(mine.square[0] + mine.square[1] + mine.square[2], scratch);
  }
  return all;
}

template <TileDtype dtype, bool staged>
__global__ void __launch_bounds__(kThreads) tile_kernel(const JigsawTilesParams p) {
  extern __shared__ __align__(16) int16_t kept[];  // [3 * t * t] in output order, if staged
  __shared__ int64_t scratch[kWarps];
  using T = typename Output<dtype>::Type;
  const int32_t n_tiles = p.grid * p.grid;
  const int32_t plane = p.tile_size * p.tile_size;
  const int32_t lane = static_cast<int32_t>(threadIdx.x);
  const int64_t tile = blockIdx.x;
  T* out = static_cast<T*>(p.tiles) + tile * 3 * plane;
  const TileSource source = tile_source(p, tile / n_tiles, static_cast<int32_t>(tile % n_tiles));
  if (source.channel[0] == nullptr) {
    clear_lane(3 * plane, lane, kThreads, out);
    return;
  }
  const TileSums mine = read_lane<staged>(source, p.channels_last, lane, kThreads, kept);
  // block_sum's barrier also makes the staged numerators visible to the whole block.
  const TileSums sums = block_sums(mine, p.statistics, scratch);
  const TileScaling scaling = tile_scaling(sums, p.statistics, source.color, p.tile_size);
  if (staged) {
    write_lane<dtype>(kept, scaling, p.channels_last, plane, lane, kThreads, out);
  } else {
    reread_lane<dtype>(source, scaling, p.channels_last, lane, kThreads, out);
  }
}

template <TileDtype dtype>
void launch_tiles(const JigsawTilesParams& p, cudaStream_t stream) {
  const unsigned blocks = static_cast<unsigned>(p.batch * p.grid * p.grid);
  if (p.tile_size <= kMaxStagedSize) {
    const size_t shared = sizeof(int16_t) * 3 * static_cast<size_t>(p.tile_size * p.tile_size);
    tile_kernel<dtype, true><<<blocks, kThreads, shared, stream>>>(p);
  } else {
    tile_kernel<dtype, false><<<blocks, kThreads, 0, stream>>>(p);
  }
  KTFAST_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

void jigsaw_tiles(const JigsawTilesParams& p, CUstream_st* stream) {
  check_params(p);
  if (p.batch == 0) return;
  KTFAST_CHECK(p.batch * p.grid * p.grid <= INT32_MAX, "the batch must hold less than 2^31 tiles");
  const unsigned blocks = static_cast<unsigned>((p.batch + kChoiceThreads - 1) / kChoiceThreads);
  choose_kernel<<<blocks, kChoiceThreads, 0, stream>>>(p);
  KTFAST_CUDA_CHECK(cudaGetLastError());
  switch (p.dtype) {
    case TileDtype::float32:
      return launch_tiles<TileDtype::float32>(p, stream);
    case TileDtype::float16:
      return launch_tiles<TileDtype::float16>(p, stream);
    case TileDtype::bfloat16:
      return launch_tiles<TileDtype::bfloat16>(p, stream);
  }
}

}  // namespace ktfast::cuda
