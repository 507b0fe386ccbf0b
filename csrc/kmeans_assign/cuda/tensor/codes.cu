// Codes rows and centres for the tensor-core screen. Each warp codes one vector.
#include <limits>
#include <type_traits>

#include "common/check.h"
#include "common/cuda_launch.cuh"
#include "kmeans_assign/cuda/exact_distance.cuh"
#include "kmeans_assign/cuda/tensor/prepared_tensor.h"
#include "kmeans_assign/kmeans_tensor.h"

namespace ktfast::cuda {
namespace {

// The launch bounds ask for two blocks per multiprocessor, which leaves every kernel enough
// registers.
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

__device__ float warp_most(float value) {
  for (int width = 16; width > 0; width /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kFullWarp, value, width));
  }
  return value;
}

template <class T>
struct RowSource {
  const T* x;
  const float* mean;
  __device__ float operator()(int64_t f) const { return shifted_value(x[f], mean[f]); }
};

struct Size {
  double square;
  float largest;  // the largest magnitude of a number
};

template <class Source>
__device__ Size size_of(Source source, int64_t n_features, int lane) {
  Size size{0, 0};
  for (int64_t f = lane; f < n_features; f += 32) {
    const float value = source(f);
    size.square += static_cast<double>(value) * static_cast<double>(value);
    size.largest = fmaxf(size.largest, fabsf(value));
  }
  return {warp_sum(size.square), warp_most(size.largest)};
}

// The code of one number, and the error of the code.
struct Rounded {
  uint32_t bits;
  float rest;
};

__device__ Rounded round_to(float value, float scale, float inverse, TensorCode code) {
  if (code == TensorCode::int8) {
    // The limits also bring NaN into the range of an int8.
    const float rounded = fminf(fmaxf(rintf(value * inverse), -127.0f), 127.0f);
    return {static_cast<uint32_t>(static_cast<int>(rounded)) & 0xffu, fmaf(-scale, rounded, value)};
  }
  const uint16_t half = float16_rounded(value * inverse);
  return {half, fmaf(-scale, to_float(float16_bits{half}), value)};
}

// Writes a vector's code, followed by zeros. Returns the sum of the squared errors of the code.
template <class Source>
__device__ double write_code(Source source, int64_t n_features, int64_t n_stages, float scale,
                             TensorCode code, int tile_height, int64_t index, int8_t* codes,
                             int lane) {
  const float inverse = 1 / scale;
  const int width = feature_bytes(code);
  double rest = 0;
  for (int64_t column = lane; column < n_stages * kStageColumns; column += 32) {
    uint32_t words[4] = {};
#pragma unroll
    for (int word = 0; word < 4; ++word) {
      for (int i = 0; i < 4 / width; ++i) {
        const int64_t f = (column * kColumnBytes + word * 4) / width + i;
        if (f >= n_features) break;
        const Rounded rounded = round_to(source(f), scale, inverse, code);
        words[word] |= rounded.bits << (8 * width * i);
        rest += static_cast<double>(rounded.rest) * static_cast<double>(rounded.rest);
      }
    }
    *reinterpret_cast<uint4*>(codes + column_offset(tile_height, n_stages, index, column)) =
        make_uint4(words[0], words[1], words[2], words[3]);
  }
  return warp_sum(rest);
}

// Codes the rows. Missing rows of the last tile become zeros.
template <class T>
__global__ void __launch_bounds__(kThreads, 2) code_rows_kernel(const KmeansTensorEncodeParams p) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const bool exists = row < p.n_rows;
  const T* x = static_cast<const T*>(p.x) + (exists ? row : 0) * p.n_features;
  const RowSource<T> source{x, p.mean};
  const int64_t length = exists ? p.n_features : 0;
  const Size size = size_of(source, length, lane);
  const float scale = code_scale(size.largest, p.code);
  const int64_t n_stages = stages_of(p.n_features, feature_bytes(p.code));
  const double rest =
      write_code(source, length, n_stages, scale, p.code, kRowTile, row, p.codes, lane);
  if (!exists || lane != 0) return;
  const double norm = code_norm(size.square);
  const double residual = code_residual(rest, norm);
  reinterpret_cast<RowConstants*>(p.constants)[row] = {
      1 / scale, rounded_up(residual), rounded_up(norm + residual), rounded_up(norm)};
}

// --- Centres ---

struct CenterSource {
  const double* c;
  const float* mean;
  __device__ double exact(int64_t f) const { return c[f] - static_cast<double>(mean[f]); }
  __device__ float operator()(int64_t f) const { return static_cast<float>(exact(f)); }
};

// Raises a maximum. Non-negative floats have the order of their bits.
__device__ void raise(float* most, float value) {
  atomicMax(reinterpret_cast<int*>(most), __float_as_int(value));
}

__global__ void __launch_bounds__(kThreads)
    clear_centers_kernel(int8_t* prepared, TensorPrepared at) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < at.half_norms / int64_t{sizeof(float)}) reinterpret_cast<float*>(prepared)[i] = 0;
}

// Computes the lengths of the centres and the largest values of each tile.
__global__ void __launch_bounds__(kThreads, 2)
    measure_centers_kernel(const KmeansTensorPrepareParams p, const TensorPrepared at) {
  const int64_t k = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float* half_norms = reinterpret_cast<float*>(p.prepared + at.half_norms);
  if (k >= p.n_clusters) {
    if (lane == 0) half_norms[k] = kInfinity;
    return;
  }
  const CenterSource source{p.centers + k * p.n_features, p.mean};
  double square = 0;
  float largest = 0;
  for (int64_t f = lane; f < p.n_features; f += 32) {
    square += source.exact(f) * source.exact(f);
    largest = fmaxf(largest, fabsf(source(f)));
  }
  square = warp_sum(square);
  largest = warp_most(largest);
  if (lane != 0) return;
  half_norms[k] = static_cast<float>(square / 2);
  const float norm = rounded_up(code_norm(square));
  // A norm of NaN must make every comparison exact.
  const float bound = norm == norm ? norm : kInfinity;
  auto* tile = reinterpret_cast<TileConstants*>(p.prepared + at.tiles) + k / kCenterTile;
  raise(reinterpret_cast<float*>(p.prepared), bound);
  raise(&tile->norm, bound);
  raise(&tile->largest, largest);
}

__global__ void __launch_bounds__(kThreads, 2)
    code_centers_kernel(const KmeansTensorPrepareParams p, const TensorPrepared at) {
  const int64_t k = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const bool exists = k < p.n_clusters;
  auto* tile = reinterpret_cast<TileConstants*>(p.prepared + at.tiles) + k / kCenterTile;
  const float scale = code_scale(tile->largest, p.code);
  const CenterSource source{p.centers + (exists ? k : 0) * p.n_features, p.mean};
  const double rest = write_code(source, exists ? p.n_features : 0, at.n_stages, scale, p.code,
                                 kCenterTile, k, p.prepared + at.codes, lane);
  if (!exists || lane != 0) return;
  if (k % kCenterTile == 0) tile->inverse_scale = 1 / scale;
  const float residual = rounded_up(code_residual(rest, static_cast<double>(tile->norm)));
  raise(&tile->residual, residual == residual ? residual : kInfinity);
}

unsigned blocks_for(int64_t work, int64_t per_block) {
  const int64_t blocks = ceil_divide(work, per_block);
  KTFAST_CHECK(blocks <= std::numeric_limits<int32_t>::max(), "more rows than one launch can take");
  return static_cast<unsigned>(blocks);
}

}  // namespace

int64_t kmeans_tensor_prepared_size(int64_t n_clusters, int64_t n_features, TensorCode code) {
  return TensorPrepared(n_clusters, n_features, code).size;
}

int64_t kmeans_tensor_tile_bytes(int64_t n_features, TensorCode code) {
  return tile_bytes(kRowTile, stages_of(n_features, feature_bytes(code)));
}

void kmeans_tensor_prepare(const KmeansTensorPrepareParams& p, CUstream_st* stream) {
  KTFAST_CHECK(p.n_clusters > 0, "centers must hold at least one row");
  KTFAST_CHECK(p.n_clusters <= std::numeric_limits<int32_t>::max() - kCenterTile,
               "centers holds more rows than int32 labels can number");
  KTFAST_CHECK(p.n_features <= kMostTensorFeatures,
               "centers has more features than tensor cores can add up; use precision float32");
  const TensorPrepared at(p.n_clusters, p.n_features, p.code);
  const int64_t slots = at.n_tiles * kCenterTile;
  launch(clear_centers_kernel, blocks_for(at.half_norms / int64_t{sizeof(float)}, kThreads),
         kThreads, 0, stream, p.prepared, at);
  launch(measure_centers_kernel, blocks_for(slots, kWarps), kThreads, 0, stream, p, at);
  launch(code_centers_kernel, blocks_for(slots, kWarps), kThreads, 0, stream, p, at);
}

void kmeans_tensor_encode(const KmeansTensorEncodeParams& p, CUstream_st* stream) {
  if (p.n_rows == 0) return;
  with_element(p.x_type, [&](auto* type) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(type)>>;
    launch(code_rows_kernel<T>, blocks_for(ceil_divide(p.n_rows, kRowTile) * kRowTile, kWarps),
           kThreads, 0, stream, p);
  });
}

}  // namespace ktfast::cuda
