// The layout of the codes of the tensor-core screen, and the order of the tiles of products. This
// header holds index arithmetic only, so that a test can check it on a CPU.
//
// Codes are stored in tiles of 128 rows or 256 centres, and a tile in stages of 128 bytes per
// vector. A stage is contiguous. It holds columns of 16 bytes: column 0 of every vector, column 1
// of every vector, and so on. So the 16 bytes of eight neighbouring vectors are one core matrix of
// wgmma and one matrix of ldmatrix, which is read without bank conflicts. A stage, or some of its
// columns, can be copied at once.
#pragma once

#include <cstdint>

#include "common/host_device.h"
#include "kmeans_assign/kmeans_tensor.h"

namespace ktfast::cuda {

constexpr int kRowTile = kTensorTileRows;
constexpr int kCenterTile = 256;
constexpr int kStageBytes = 128;  // bytes of one vector in a stage
constexpr int kColumnBytes = 16;
constexpr int kStepBytes = 32;  // bytes of one vector per instruction: 32 int8 or 16 float16
constexpr int kStageColumns = kStageBytes / kColumnBytes;
constexpr int kCoreRows = 8;
constexpr int kCoreBytes = kCoreRows * kColumnBytes;  // distance to the next eight vectors

// The distance between two neighbouring columns, in bytes.
KTFAST_HD constexpr int leading_bytes(int tile_height) { return tile_height * kColumnBytes; }

KTFAST_HD constexpr int64_t ceil_divide(int64_t value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

// The number of stages. Without features there is one stage of zeros.
KTFAST_HD constexpr int64_t stages_of(int64_t n_features, int feature_bytes) {
  return n_features > 0 ? ceil_divide(n_features * feature_bytes, kStageBytes) : 1;
}

// The size of a tile of the given height.
KTFAST_HD constexpr int64_t tile_bytes(int tile_height, int64_t n_stages) {
  return int64_t{tile_height} * kStageBytes * n_stages;
}

// The offset of column `column` of vector `index`.
KTFAST_HD constexpr int64_t column_offset(int tile_height, int64_t n_stages, int64_t index,
                                          int64_t column) {
  const int64_t tile = index / tile_height * tile_bytes(tile_height, n_stages);
  return tile + (column * tile_height + index % tile_height) * kColumnBytes;
}

// --- The order of the tiles of products ---

// Blocks that run at the same time take row tiles of one band. They take all row tiles of the band
// before the next centre tile. So the codes of a band and of all centres stay in the L2 cache, and
// each band reads them from the device's memory once.
constexpr int64_t kBand = 16;

struct ProductTile {
  int64_t row_tile;
  int64_t center_tile;
};

KTFAST_HD ProductTile product_tile(int64_t number, int64_t n_row_tiles, int64_t n_center_tiles) {
  const int64_t band = number / (kBand * n_center_tiles);
  const int64_t left = n_row_tiles - band * kBand;
  const int64_t height = left < kBand ? left : kBand;
  const int64_t within = number - band * kBand * n_center_tiles;
  return {band * kBand + within % height, within / height};
}

}  // namespace ktfast::cuda
