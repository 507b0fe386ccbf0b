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
constexpr uint32_t kBand = 16;

struct ProductTile {
  int32_t row_tile;
  int32_t center_tile;
};

// The tiles of products of one block: number `first`, and then every number `stride` further on.
// The walk divides only numbers of 32 bits, because a GPU divides numbers of 64 bits by a call.
class ProductTiles {
 public:
  KTFAST_HD ProductTiles(uint32_t first, uint32_t stride, int64_t n_row_tiles,
                         int64_t n_center_tiles)
      : stride_(stride),
        n_center_tiles_(static_cast<uint32_t>(n_center_tiles)),
        left_(static_cast<uint32_t>(n_row_tiles)),
        within_(first) {
    enter_band();
  }

  KTFAST_HD bool more() const { return left_ > 0; }
  KTFAST_HD ProductTile tile() const {
    const uint32_t height = band_height();
    const uint32_t column = height == kBand ? within_ / kBand : within_ / height;
    return {static_cast<int32_t>(band_ + within_ - column * height), static_cast<int32_t>(column)};
  }
  KTFAST_HD void advance() {
    within_ += stride_;
    enter_band();
  }

 private:
  KTFAST_HD uint32_t band_height() const { return left_ < kBand ? left_ : kBand; }
  KTFAST_HD void enter_band() {
    while (left_ > 0 && within_ >= band_height() * n_center_tiles_) {
      within_ -= band_height() * n_center_tiles_;
      left_ -= band_height();
      band_ += kBand;
    }
  }

  uint32_t stride_, n_center_tiles_;
  uint32_t left_;    // row tiles from the band on
  uint32_t within_;  // the number within the band
  uint32_t band_ = 0;
};

}  // namespace ktfast::cuda
