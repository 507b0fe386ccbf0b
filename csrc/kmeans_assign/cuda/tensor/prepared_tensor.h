// The layout of the prepared centres of the tensor-core screen.
#pragma once

#include <cstdint>

#include "kmeans_assign/cuda/tensor/code_tile.h"
#include "kmeans_assign/cuda/tensor/tensor_math.h"

namespace ktfast::cuda {

// Offsets and sizes in bytes, all multiples of 128.
struct TensorPrepared {
  int64_t n_tiles, n_stages;
  int64_t tiles, half_norms, codes, size;

  KTFAST_HD TensorPrepared(int64_t n_clusters, int64_t n_features, TensorCode code)
      : n_tiles(ceil_divide(n_clusters, kCenterTile)),
        n_stages(stages_of(n_features, feature_bytes(code))),
        tiles(128),  // the first 128 bytes hold the largest |c'|, a float
        half_norms(tiles + ceil_divide(n_tiles * int64_t{sizeof(TileConstants)}, 128) * 128),
        codes(half_norms + n_tiles * kCenterTile * int64_t{sizeof(float)}),
        size(codes + n_tiles * tile_bytes(kCenterTile, n_stages)) {}

  KTFAST_HD const float* longest_in(const int8_t* prepared) const {
    return reinterpret_cast<const float*>(prepared);
  }
  KTFAST_HD const TileConstants* tiles_in(const int8_t* prepared) const {
    return reinterpret_cast<const TileConstants*>(prepared + tiles);
  }
  // [n_tiles, kCenterTile] |c'|^2 / 2; infinite where there is no centre.
  KTFAST_HD const float* half_norms_in(const int8_t* prepared) const {
    return reinterpret_cast<const float*>(prepared + half_norms);
  }
};

}  // namespace ktfast::cuda
