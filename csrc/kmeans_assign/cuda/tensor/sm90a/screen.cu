// The tensor-core screen with wgmma, for compute capability 9.0 only.
#include "kmeans_assign/cuda/tensor/screen.cuh"

#include <algorithm>

#include "common/cuda_launch.cuh"
#include "common/tensor_core.cuh"

namespace ktfast::cuda {
namespace {

// A block multiplies 128 rows by 256 centres. Two warpgroups multiply 64 rows each, with 128 sums
// per thread. One thread of a third warpgroup fills a ring of four stages in shared memory, 48 KiB
// each. While the two warpgroups screen the products of a tile, this thread copies stages of the
// next tile. Not measured on a GPU.
constexpr int kGroup = 128;
constexpr int kMultiplyingGroups = 2;
constexpr int kThreads = (1 + kMultiplyingGroups) * kGroup;
constexpr int kGroupRows = kRowTile / kMultiplyingGroups;
constexpr int kDepth = 4;
constexpr int kRowStage = kRowTile * kStageBytes;
constexpr int kCenterStage = kCenterTile * kStageBytes;
constexpr int kStage = kRowStage + kCenterStage;
// The half norms of two centre tiles: one tile is screened while the other's norms arrive.
constexpr int kHalves = 2;
constexpr int kHalfNorms = kCenterTile * static_cast<int>(sizeof(float));
constexpr int kBarriers = 2 * (kDepth + kHalves);
constexpr int kShared =
    kDepth * kStage + kHalves * kHalfNorms + kBarriers * static_cast<int>(sizeof(uint64_t));
constexpr int kWidth = kCenterTile / 8;
// Registers per thread. A multiprocessor has 65,536; the block uses 128 x 24 + 256 x 240.
constexpr int kCopyingRegisters = 24;
constexpr int kMultiplyingRegisters = 240;

struct Int8 {
  using Sum = int32_t;
  __device__ static void multiply(Sum (&sums)[128], uint64_t a, uint64_t b, bool accumulate) {
    wgmma_s8(sums, a, b, accumulate);
  }
};
struct Float16 {
  using Sum = float;
  __device__ static void multiply(Sum (&sums)[128], uint64_t a, uint64_t b, bool accumulate) {
    wgmma_f16(sums, a, b, accumulate);
  }
};

// The stages in shared memory with two barriers each. `full` completes when the bytes of the stage
// have arrived, `empty` when every warp has multiplied the stage.
struct Ring {
  unsigned char* stages;
  uint64_t* full;
  uint64_t* empty;
  int slot = 0;
  uint32_t round = 0;  // parity of the number of completed rounds through the slots

  __device__ explicit Ring(unsigned char* shared)
      : stages(shared),
        full(reinterpret_cast<uint64_t*>(shared + kDepth * kStage + kHalves * kHalfNorms)),
        empty(full + kDepth) {}

  __device__ unsigned char* stage() const { return stages + slot * kStage; }
  __device__ void advance() {
    if (++slot == kDepth) {
      slot = 0;
      round ^= 1;
    }
  }
};

// The half norms in shared memory behind the stages, with two barriers for each tile, as in Ring.
struct HalfNorms {
  unsigned char* norms;
  uint64_t* full;
  uint64_t* empty;
  int slot = 0;
  uint32_t round = 0;

  __device__ explicit HalfNorms(const Ring& ring)
      : norms(ring.stages + kDepth * kStage), full(ring.empty + kDepth), empty(full + kHalves) {}

  // Called by the copying thread.
  __device__ void copy(const float* from) {
    barrier_wait(&empty[slot], round ^ 1);
    barrier_expect_bytes(&full[slot], kHalfNorms);
    bulk_copy(norms + slot * kHalfNorms, from, kHalfNorms, &full[slot]);
    advance();
  }

  // Waits for the half norms of the next tile.
  __device__ const float* wait() const {
    barrier_wait(&full[slot], round);
    return reinterpret_cast<const float*>(norms + slot * kHalfNorms);
  }

  // Called by every thread of a warp that no longer reads the half norms.
  __device__ void release() {
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(&empty[slot]);
    advance();
  }

 private:
  __device__ void advance() {
    if (++slot == kHalves) {
      slot = 0;
      round ^= 1;
    }
  }
};

__device__ void copy_tiles(const TensorScreenParams& p, Ring ring) {
  HalfNorms halves(ring);
  for (ProductTiles tiles = p.product_tiles(); tiles.more(); tiles.advance()) {
    const ProductTile tile = tiles.tile();
    halves.copy(p.half_norms + int64_t{tile.center_tile} * kCenterTile);
    const int8_t* rows = p.row_codes + p.row_tile(tile) * tile_bytes(kRowTile, p.n_stages);
    const int8_t* centers = p.center_codes + tile.center_tile * tile_bytes(kCenterTile, p.n_stages);
    for (int64_t stage = 0; stage < p.n_stages; ++stage) {
      barrier_wait(&ring.empty[ring.slot], ring.round ^ 1);  // returns at once in the first round
      barrier_expect_bytes(&ring.full[ring.slot], kStage);
      bulk_copy(ring.stage(), rows + stage * kRowStage, kRowStage, &ring.full[ring.slot]);
      bulk_copy(ring.stage() + kRowStage, centers + stage * kCenterStage, kCenterStage,
                &ring.full[ring.slot]);
      ring.advance();
    }
  }
}

template <class Code>
__device__ void multiply_tile(int64_t n_stages, int group, Ring& ring,
                              typename Code::Sum (&sums)[128]) {
  uint64_t* multiplied = nullptr;  // the `empty` barrier of the previous stage
  wgmma_fence_sums(sums);
  for (int64_t stage = 0; stage < n_stages; ++stage) {
    barrier_wait(&ring.full[ring.slot], ring.round);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kStageBytes / kStepBytes; ++step) {
      const unsigned char* rows =
          ring.stage() + 2 * step * leading_bytes(kRowTile) + group * kGroupRows * kColumnBytes;
      const unsigned char* centers =
          ring.stage() + kRowStage + 2 * step * leading_bytes(kCenterTile);
      Code::multiply(sums, matrix_descriptor(rows, leading_bytes(kRowTile), kCoreBytes),
                     matrix_descriptor(centers, leading_bytes(kCenterTile), kCoreBytes),
                     stage > 0 || step > 0);
    }
    wgmma_commit();
    wgmma_wait<1>();
    if (multiplied != nullptr && threadIdx.x % 32 == 0) barrier_arrive(multiplied);
    multiplied = &ring.empty[ring.slot];
    ring.advance();
  }
  wgmma_wait<0>();
  wgmma_fence_sums(sums);
  if (threadIdx.x % 32 == 0) barrier_arrive(multiplied);
}

template <class Code>
__device__ void screen_tiles(const TensorScreenParams& p, int group, Ring ring) {
  const int thread = static_cast<int>(threadIdx.x) % kGroup;
  HalfNorms halves(ring);
  for (ProductTiles tiles = p.product_tiles(); tiles.more(); tiles.advance()) {
    typename Code::Sum sums[kWidth][4];
    multiply_tile<Code>(p.n_stages, group, ring,
                        reinterpret_cast<typename Code::Sum(&)[4 * kWidth]>(sums));
    const ProductTile tile = tiles.tile();
    const int64_t row =
        p.row_tile(tile) * kRowTile + group * kGroupRows + thread / 32 * 16 + thread % 32 / 4;
    screen_products(p, sums, tile.center_tile, row, thread % 4 * 2, halves.wait());
    halves.release();
  }
}

template <class Code>
__global__ void __launch_bounds__(kThreads, 1) wgmma_screen_kernel(const TensorScreenParams p) {
  KTFAST_DYNAMIC_SHARED(shared);
  const Ring ring(shared);
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < kDepth; ++slot) {
      barrier_init(&ring.full[slot], 1);
      barrier_init(&ring.empty[slot], kMultiplyingGroups * kGroup / 32);
    }
    const HalfNorms halves(ring);
    for (int slot = 0; slot < kHalves; ++slot) {
      barrier_init(&halves.full[slot], 1);
      barrier_init(&halves.empty[slot], kMultiplyingGroups * kGroup / 32);
    }
    barrier_init_fence();
  }
  __syncthreads();
  const int group = static_cast<int>(threadIdx.x) / kGroup;
  if (group == kMultiplyingGroups) {
    registers_decrease<kCopyingRegisters>();
    if (threadIdx.x % kGroup == 0) copy_tiles(p, ring);
  } else {
    registers_increase<kMultiplyingRegisters>();
    screen_tiles<Code>(p, group, ring);
  }
}

}  // namespace

void launch_wgmma_screen(const TensorScreenParams& p, TensorCode code, CUstream_st* stream) {
  const int64_t n_tiles = p.n_row_tiles * p.n_center_tiles;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(n_tiles, multiprocessors()));
  launch(code == TensorCode::int8 ? wgmma_screen_kernel<Int8> : wgmma_screen_kernel<Float16>,
         blocks, kThreads, kShared, stream, p);
}

}  // namespace ktfast::cuda
