// The tensor-core screen with mma.sync, for every GPU with tensor cores.
#include "kmeans_assign/cuda/tensor/screen.cuh"

#include <algorithm>

#include "common/cuda_launch.cuh"
#include "common/tensor_core.cuh"

namespace ktfast::cuda {
namespace {

// A block multiplies 128 rows by 256 centres, and a warp 64 by 64 of them. A thread has 128 sums.
// Reading the operands takes half of the bandwidth of shared memory. Chunks of 64 bytes of every
// vector, 24 KiB each, pass through a ring in shared memory. The ring has four chunks if a block
// may have 97 KiB (capability 8.0 or more), else two. The half norms of the tile's centres take
// 1 KiB. Not measured on a GPU.
constexpr int kThreads = 256;
constexpr int kWarpRows = 64;
constexpr int kWarpCenters = 64;
constexpr int kWarpsAcross = kCenterTile / kWarpCenters;
constexpr int kFragments = kWarpRows / 16;
constexpr int kWidth = kWarpCenters / 8;
constexpr int kChunkColumns = 4;
constexpr int kRowChunk = kRowTile * kChunkColumns * kColumnBytes;
constexpr int kCenterChunk = kCenterTile * kChunkColumns * kColumnBytes;
constexpr int kChunk = kRowChunk + kCenterChunk;
constexpr int kHalfNorms = kCenterTile * static_cast<int>(sizeof(float));
static_assert(kThreads == kCenterTile);  // a thread copies the half norm of one centre
static_assert(kThreads / 32 == (kRowTile / kWarpRows) * kWarpsAcross);
static_assert(kRowChunk % (kThreads * 16) == 0 && kCenterChunk % (kThreads * 16) == 0);

struct Int8 {
  using Sum = int32_t;
  __device__ static void multiply(Sum (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_s8(sums, a, b);
  }
};
struct Float16 {
  using Sum = float;
  __device__ static void multiply(Sum (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_f16(sums, a, b);
  }
};

// Copies the block's chunks, one tile after another.
class Chunks {
 public:
  __device__ Chunks(const TensorScreenParams& p, unsigned char* ring, int depth)
      : p_(p), ring_(ring), depth_(depth), tiles_(p.product_tiles()) {}

  // Starts the copy of the next chunk, if there is one.
  __device__ void copy_next() {
    if (tiles_.more()) {
      const ProductTile tile = tiles_.tile();
      const int8_t* rows = p_.row_codes + p_.row_tile(tile) * tile_bytes(kRowTile, p_.n_stages);
      const int8_t* centers =
          p_.center_codes + tile.center_tile * tile_bytes(kCenterTile, p_.n_stages);
      unsigned char* to = ring_ + slot_ * kChunk;
      copy(to, rows + chunk_ * kRowChunk, kRowChunk);
      copy(to + kRowChunk, centers + chunk_ * kCenterChunk, kCenterChunk);
      slot_ = slot_ + 1 == depth_ ? 0 : slot_ + 1;
      if (++chunk_ == p_.n_stages * (kStageColumns / kChunkColumns)) {
        chunk_ = 0;
        tiles_.advance();
      }
    }
    copy_async_commit();
  }

 private:
  __device__ static void copy(unsigned char* to, const int8_t* from, int bytes) {
    for (int i = static_cast<int>(threadIdx.x) * 16; i < bytes; i += kThreads * 16) {
      copy_async_16(to + i, from + i);
    }
  }

  const TensorScreenParams& p_;
  unsigned char* const ring_;
  const int depth_;
  ProductTiles tiles_;
  int64_t chunk_ = 0;
  int slot_ = 0;
};

template <class Code>
__device__ void multiply_chunk(const unsigned char* chunk, int lane, int warp,
                               typename Code::Sum (&sums)[kFragments][kWidth][4]) {
  // Lane l passes the address of row l % 8 of matrix l / 8, one of four matrices of 8 x 16 bytes.
  const int matrix = lane / 8;
  const unsigned char* rows =
      chunk + (matrix / 2) * leading_bytes(kRowTile) +
      (warp / kWarpsAcross * kWarpRows + matrix % 2 * 8 + lane % 8) * kColumnBytes;
  const unsigned char* centers =
      chunk + kRowChunk + (matrix % 2) * leading_bytes(kCenterTile) +
      (warp % kWarpsAcross * kWarpCenters + matrix / 2 * 8 + lane % 8) * kColumnBytes;
#pragma unroll
  for (int step = 0; step < kChunkColumns / 2; ++step) {
    uint32_t a[kFragments][4];
#pragma unroll
    for (int m = 0; m < kFragments; ++m) {
      ldmatrix_x4(a[m], rows + 2 * step * leading_bytes(kRowTile) + m * 16 * kColumnBytes);
    }
#pragma unroll
    for (int n = 0; n < kWidth; n += 2) {
      uint32_t b[4];
      ldmatrix_x4(b, centers + 2 * step * leading_bytes(kCenterTile) + n * 8 * kColumnBytes);
#pragma unroll
      for (int m = 0; m < kFragments; ++m) {
        Code::multiply(sums[m][n], a[m], {b[0], b[1]});
        Code::multiply(sums[m][n + 1], a[m], {b[2], b[3]});
      }
    }
  }
}

template <class Code>
__global__ void __launch_bounds__(kThreads, 1)
    mma_screen_kernel(const TensorScreenParams p, const int depth) {
  KTFAST_DYNAMIC_SHARED(ring);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t n_chunks = p.n_stages * (kStageColumns / kChunkColumns);
  Chunks chunks(p, ring, depth);
  for (int i = 0; i < depth - 1; ++i) chunks.copy_next();
  int slot = 0;
  auto* const half_norms = reinterpret_cast<float*>(ring + depth * kChunk);
  for (ProductTiles tiles = p.product_tiles(); tiles.more(); tiles.advance()) {
    const ProductTile tile = tiles.tile();
    const float half_norm = p.half_norms[int64_t{tile.center_tile} * kCenterTile + threadIdx.x];
    typename Code::Sum sums[kFragments][kWidth][4] = {};
    for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
      if (depth == 2) {
        copy_async_wait<0>();
      } else {
        copy_async_wait<2>();
      }
      __syncthreads();  // the chunk has arrived, and every warp has multiplied the previous one
      chunks.copy_next();
      multiply_chunk<Code>(ring + slot * kChunk, lane, warp, sums);
      slot = slot + 1 == depth ? 0 : slot + 1;
    }
    half_norms[threadIdx.x] = half_norm;
    __syncthreads();
    const int64_t row = p.row_tile(tile) * kRowTile + warp / kWarpsAcross * kWarpRows + lane / 4;
    const int within = warp % kWarpsAcross * kWarpCenters + lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < kFragments; ++m) {
      screen_products(p, sums[m], tile.center_tile, row + m * 16, within, half_norms);
    }
  }
}

int attribute(cudaDeviceAttr which) {
  int device = 0;
  int value = 0;
  KTFAST_CUDA_CHECK(cudaGetDevice(&device));
  KTFAST_CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

}  // namespace

int multiprocessors() { return attribute(cudaDevAttrMultiProcessorCount); }

int compute_capability() {
  return 10 * attribute(cudaDevAttrComputeCapabilityMajor) +
         attribute(cudaDevAttrComputeCapabilityMinor);
}

void launch_mma_screen(const TensorScreenParams& p, TensorCode code, CUstream_st* stream) {
  const int64_t n_tiles = p.n_row_tiles * p.n_center_tiles;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(n_tiles, multiprocessors()));
  const int depth = compute_capability() >= 80 ? 4 : 2;
  launch(code == TensorCode::int8 ? mma_screen_kernel<Int8> : mma_screen_kernel<Float16>, blocks,
         kThreads, static_cast<size_t>(depth) * kChunk + kHalfNorms, stream, p, depth);
}

}  // namespace ktfast::cuda
