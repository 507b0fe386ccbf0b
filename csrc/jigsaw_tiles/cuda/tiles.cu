#include "jigsaw_tiles/jigsaw_tiles.h"

#include "common/cuda_launch.cuh"
#include "jigsaw_tiles/tile_choices.h"
#include "jigsaw_tiles/tile_lane.h"
#include "jigsaw_tiles/tile_math.h"

namespace ktfast::cuda {
namespace {

// A block of 256 threads makes one tile. The lanes of the first warp draw the random numbers, one
// block of them each, and the first thread makes the random choices from them. All threads copy the
// tile's bytes to shared memory, 16 aligned bytes at a time, compute the sums from the copy, and
// write the outputs from the copy, 16 bytes at a time. A tile of more than kMaxStage bytes may not
// fit the shared memory of every device, so its block reads the image twice instead.
//
// nvcc 13.0 compiles the kernel for sm_75, 80, 90, 100 and 120 to 62 to 64 registers, without
// spills or stack. A block that reads the image twice may use 80, because two such kernels spilled
// on sm_100 with 64. A block uses 1 KB of static shared memory, and 16.1 KB more for the copy of a
// tile of 64 px. So the registers allow 4 blocks per multiprocessor, and the 64 KB of shared memory
// of sm_75 allow 3. By calculation, enough reads are in flight to hide the latency of the memory.
// The kernel has not been timed.
constexpr int kThreads = 256;
constexpr int kBlocks = 4;  // per multiprocessor
constexpr int kBlocksWithoutCopy = 3;
constexpr int kWarps = kThreads / 32;
constexpr int64_t kMaxStage = 47 << 10;

// What one thread computes for all threads.
struct TilePlan {
  TileSource source;
  TileStage stage;
  TileScaling scaling;
};

// The blocks of random numbers that a tile needs, drawn by the lanes of a warp.
struct TileDraws {
  static constexpr int kOthers = 4;  // row, donor, and two of the slot
  PhiloxBlock blocks[kOthers + kMaxGrid * kMaxGrid];

  static_assert(kOthers + kMaxGrid * kMaxGrid <= 32, "a lane draws one block");

  __device__ static uint32_t block_at(int place, int32_t slot) {
    if (place < 2) return place == 0 ? kRowBlock : kDonorBlock;
    if (place < kOthers) return kSlotBlocks + 2 * static_cast<uint32_t>(slot) + (place - 2);
    return kOccluderBlocks + static_cast<uint32_t>(place - kOthers);
  }
  __device__ PhiloxBlock operator()(uint32_t block) const {
    if (block >= kOccluderBlocks) return blocks[kOthers + block - kOccluderBlocks];
    if (block >= kSlotBlocks) return blocks[2 + (block - kSlotBlocks) % 2];
    return blocks[block == kRowBlock ? 0 : 1];
  }
};

__device__ __forceinline__ void choose_tile(const JigsawTilesParams& p, int64_t row, int32_t slot,
                                            TileDraws* draws, TilePlan* plan) {
  const int lane = static_cast<int>(threadIdx.x);
  if (lane < TileDraws::kOthers + p.max_occluders) {
    draws->blocks[lane] = draw(p, row, TileDraws::block_at(lane, slot));
  }
  __syncwarp();
  if (lane != 0) return;
  const RowChoices choices = choose_row(p, row, *draws);
  const SlotChoices shown = choose_slot(p, choices, slot, *draws);
  if (slot == 0) store_row(p, row, choices);
  store_slot(p, row, slot, shown);
  plan->source = tile_source(p, row, choices, shown);
  if (plan->source.channel[0] != nullptr) plan->stage = tile_stage(plan->source, shown.offsets);
}

__device__ __forceinline__ int64_t warp_sum(int64_t value) {
  for (int step = 16; step > 0; step /= 2) {
    value += __shfl_down_sync(0xFFFFFFFFu, static_cast<long long>(value), step);
  }
  return value;
}

using WarpSums = int64_t[2][3];  // sums of numbers and of their squares, per channel

__device__ __forceinline__ void leave_sums(const TileSums& mine, WarpSums* of_warps) {
  for (int c = 0; c < 3; ++c) {
    const int64_t sum = warp_sum(mine.sum[c]);
    const int64_t square = warp_sum(mine.square[c]);
    if (threadIdx.x % 32 != 0) continue;
    of_warps[threadIdx.x / 32][0][c] = sum;
    of_warps[threadIdx.x / 32][1][c] = square;
  }
}

__device__ __forceinline__ TileSums added(const WarpSums* of_warps) {
  TileSums total;
  for (int warp = 0; warp < kWarps; ++warp) {
    for (int c = 0; c < 3; ++c) {
      total.sum[c] += of_warps[warp][0][c];
      total.square[c] += of_warps[warp][1][c];
    }
  }
  return total;
}

template <TileDtype dtype, bool staged>
__global__ void __launch_bounds__(kThreads, staged ? kBlocks : kBlocksWithoutCopy)
    tile_kernel(const JigsawTilesParams p) {
  KTFAST_DYNAMIC_SHARED(copy);
  __shared__ TilePlan plan;
  __shared__ TileDraws draws;
  __shared__ WarpSums of_warps[kWarps];
  using T = typename Output<dtype>::Type;
  const int32_t n_tiles = p.grid * p.grid;
  const int32_t elements = 3 * p.tile_size * p.tile_size;
  const int32_t lane = static_cast<int32_t>(threadIdx.x);
  const int64_t row = blockIdx.x / n_tiles;
  if (lane < 32) choose_tile(p, row, static_cast<int32_t>(blockIdx.x % n_tiles), &draws, &plan);
  __syncthreads();
  T* out = static_cast<T*>(p.tiles) + int64_t{blockIdx.x} * elements;
  TileSource source = plan.source;
  if (source.channel[0] == nullptr) {
    clear_lane(elements, lane, kThreads, out);
    return;
  }
  if (staged) {
    const uint8_t* end = p.images + p.n_images * p.height * source.row_bytes;
    stage_lane(plan.stage, p.images, end, lane, kThreads, copy);
    source = staged_source(plan.stage, source, copy);
    __syncthreads();
  }
  leave_sums(sum_lane(source, lane, kThreads), of_warps);
  __syncthreads();
  // One thread divides and takes the root, because double precision is slow on most devices.
  if (lane == 0) {
    plan.scaling = tile_scaling(added(of_warps), p.statistics, source.color, p.tile_size);
  }
  __syncthreads();
  write_lane<dtype>(source, plan.scaling, p.channels_last, lane, kThreads, out);
}

template <TileDtype dtype>
void launch_tiles(const JigsawTilesParams& p, CUstream_st* stream) {
  const unsigned blocks = static_cast<unsigned>(p.batch * p.grid * p.grid);
  const int64_t stage = stage_size(p.tile_size, p.chroma_shift);
  if (stage <= kMaxStage) {
    launch(tile_kernel<dtype, true>, blocks, kThreads, static_cast<size_t>(stage), stream, p);
  } else {
    launch(tile_kernel<dtype, false>, blocks, kThreads, 0, stream, p);
  }
}

}  // namespace

void jigsaw_tiles(const JigsawTilesParams& p, CUstream_st* stream) {
  check_params(p);
  if (p.batch == 0) return;
  KTFAST_CHECK(p.batch * p.grid * p.grid <= INT32_MAX, "the batch must hold less than 2^31 tiles");
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
