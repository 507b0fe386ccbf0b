// What the two product kernels share: their parameters, and the screening of a tile of products
// that lies in registers.
#pragma once

#include <cstdint>

#include "kmeans_assign/cuda/exact_distance.cuh"
#include "kmeans_assign/cuda/tensor/code_tile.h"
#include "kmeans_assign/cuda/tensor/tensor_math.h"

namespace ktfast::cuda {

struct TensorScreenParams {
  int64_t n_rows;
  int64_t n_clusters;
  int64_t n_stages;
  int64_t n_row_tiles;
  int64_t n_center_tiles;    // how many to screen, from the first on
  const int8_t* row_codes;   // [n_row_tiles, n_stages, 128 x 128]
  const RowConstants* rows;  // [n_rows]
  const float* limits;       // [n_rows] upper bound of the nearest's score; -infinite: skip the row
  const int8_t* center_codes;      // [tiles, n_stages, 256 x 128]
  const float* half_norms;         // [tiles, 256]
  const TileConstants* tiles;      // [tiles]
  unsigned long long* best;        // [n_rows] packed: the least score, or the least upper bound
  int32_t* counts;                 // [n_rows] number of candidates
  unsigned long long* candidates;  // [n_rows, kCandidates] packed: lower bound, centre
  // With `active`, only some row tiles are screened: [1 + n_row_tiles] how many, and which.
  const int32_t* active;
  // With `others`, the least lower bound of a row's scores of all centres but the label is found.
  uint32_t* others;       // [n_rows] ordered bits of a float
  const int32_t* labels;  // [n_rows], for `others`
  float product_error;
  bool certify;  // `best` takes upper bounds instead of scores
  bool collect;  // candidates are collected

  // The tiles of the running block.
  __device__ ProductTiles product_tiles() const {
    const int64_t rows = active == nullptr ? n_row_tiles : active[0];
    return ProductTiles(blockIdx.x, gridDim.x, rows, n_center_tiles);
  }
  __device__ int64_t row_tile(const ProductTile& tile) const {
    return active == nullptr ? tile.row_tile : active[1 + tile.row_tile];
  }
};

// Properties of the current device.
int multiprocessors();
int compute_capability();  // times ten

// launch_mma_screen() works on every device with tensor cores, launch_wgmma_screen() on compute
// capability 9.0 only.
void launch_mma_screen(const TensorScreenParams& p, TensorCode code, CUstream_st* stream);
void launch_wgmma_screen(const TensorScreenParams& p, TensorCode code, CUstream_st* stream);

// A thread's products of one row. Of every eight centres the thread has two neighbours, as the
// matrix instructions distribute them.
template <int kWidth>
struct RowProducts {
  float values[2 * kWidth];  // product - inverse x half norm; larger for a nearer centre
  float most;
  float inverse;

  // The centre of values[i], counted from the thread's first centre.
  __device__ static int center(int i) { return i / 2 * 8 + i % 2; }

  // Selects without indexing, because an array that is indexed at run time lies in memory instead
  // of registers.
  __device__ float at(int index) const {
    float value = values[0];
#pragma unroll
    for (int i = 1; i < 2 * kWidth; ++i) value = i == index ? values[i] : value;
    return value;
  }

  // The largest value but that of one centre, counted from the thread's first centre.
  __device__ float most_but(int64_t excluded) const {
    if (excluded < 0 || excluded >= 8 * kWidth || excluded % 8 > 1) return most;
    const int index = static_cast<int>(excluded) / 8 * 2 + static_cast<int>(excluded) % 8;
    float value = -static_cast<float>(HUGE_VAL);
#pragma unroll
    for (int i = 0; i < 2 * kWidth; ++i) value = fmaxf(value, i == index ? value : values[i]);
    return value;
  }

  // Sets bit i if values[i] is not below the threshold.
  __device__ uint64_t reaching(float threshold) const {
    uint64_t mask = 0;
#pragma unroll
    for (int i = 0; i < 2 * kWidth; ++i) {
      mask |= static_cast<uint64_t>(!(values[i] < threshold)) << i;
    }
    return mask;
  }
};

// The largest value of four neighbouring threads.
__device__ inline float most_of_four(float value) {
  value = fmaxf(value, __shfl_xor_sync(kFullWarp, value, 1));
  return fmaxf(value, __shfl_xor_sync(kFullWarp, value, 2));
}

// Lowers the limit of a row with the best product of a tile, and collects the row's candidates.
// Four neighbouring threads share the row. `first` is the thread's first centre.
template <int kWidth>
__device__ void screen_row(const TensorScreenParams& p, const RowProducts<kWidth>& products,
                           const TileConstants& tile, int64_t row, int64_t first) {
  const float most = most_of_four(products.most);
  float rest = most;
  if (p.others != nullptr) {
    const int64_t label = row < p.n_rows ? p.labels[row] : -1;
    rest = most_of_four(products.most_but(label - first));
  }
  if (row >= p.n_rows) return;
  float limit = p.limits[row];
  if (limit == -static_cast<float>(HUGE_VAL)) return;
  const float error = screen_error(p.rows[row], tile, p.product_error);
  const float known = score_of(__ldcg(p.best + row));
  const float scale = 1 / products.inverse;
  if (p.others != nullptr && first % 8 == 0) {  // one of the four threads
    const float bound = fmaf(-scale, rest, -error);
    const auto least = -static_cast<float>(HUGE_VAL);
    atomicMin(p.others + row, ordered_bits(bound > least ? bound : least));  // NaN excludes nothing
  }
  const float score = fmaf(-scale, most, p.certify ? error : 0.0f);
  if (score < known && products.most == most) {
    const int i = __ffsll(static_cast<long long>(products.reaching(most))) - 1;
    const auto center = static_cast<uint32_t>(first + RowProducts<kWidth>::center(i));
    atomicMin(p.best + row, packed_score(score, center));
  }
  if (!p.collect) return;
  limit = fminf(limit, fminf(known, score));
  const float threshold = -(limit + error) * products.inverse;
  if (products.most < threshold) return;
  for (uint64_t mask = products.reaching(threshold); mask != 0; mask &= mask - 1) {
    const int i = __ffsll(static_cast<long long>(mask)) - 1;
    const int64_t center = first + RowProducts<kWidth>::center(i);
    if (center >= p.n_clusters) continue;
    const int32_t place = atomicAdd(p.counts + row, 1);
    if (place >= kCandidates) return;
    const float bound = fmaf(-scale, products.at(i), -error);
    p.candidates[row * kCandidates + place] = packed_score(bound, static_cast<uint32_t>(center));
  }
}

// Screens a fragment of 16 rows by 8 kWidth centres. A thread has the rows lane / 4 and lane / 4 +
// 8, and of each eight centres 2 (lane % 4) and the next. `row` is the thread's first row, and
// `within` its first centre, counted within the tile. `half_norms` are those of the tile's 256
// centres, in shared memory: each thread reads 64 of them twice for every tile.
template <int kWidth, class Sum>
__device__ void screen_products(const TensorScreenParams& p, const Sum (&sums)[kWidth][4],
                                int64_t center_tile, int64_t row, int within,
                                const float* half_norms) {
  const TileConstants tile = p.tiles[center_tile];
  const int64_t first = center_tile * kCenterTile + within;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t r = row + half * 8;
    const int64_t existing = r < p.n_rows ? r : p.n_rows - 1;
    RowProducts<kWidth> products;
    products.inverse = p.rows[existing].inverse_scale * tile.inverse_scale;
    products.most = -static_cast<float>(HUGE_VAL);
#pragma unroll
    for (int n = 0; n < kWidth; ++n) {
      const float2 halves = *reinterpret_cast<const float2*>(half_norms + within + n * 8);
      const auto left = static_cast<float>(sums[n][half * 2]);
      const auto right = static_cast<float>(sums[n][half * 2 + 1]);
      products.values[2 * n] = fmaf(-products.inverse, halves.x, left);
      products.values[2 * n + 1] = fmaf(-products.inverse, halves.y, right);
      products.most =
          fmaxf(products.most, fmaxf(products.values[2 * n], products.values[2 * n + 1]));
    }
    screen_row(p, products, tile, r, first);
  }
}

}  // namespace ktfast::cuda
