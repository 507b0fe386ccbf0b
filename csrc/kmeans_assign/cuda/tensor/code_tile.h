// Where the codes of the tensor-core screen lie, and which tile of products comes when: index
// arithmetic only, so that it can be checked on a CPU.
//
// Codes lie in tiles of 128 rows or 256 centres, and a tile in stages of 128 bytes per vector. A
// stage is one contiguous block of columns of 16 bytes: column 0 of every vector, column 1 of every
// vector, ... So eight neighbouring vectors' 16 bytes are one core matrix of wgmma and one matrix
// of ldmatrix, read without bank conflicts; and a stage, or a few of its columns, is one copy.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace ktfast::cuda {

constexpr int kRowTile = 128;
constexpr int kCenterTile = 256;
constexpr int kStageBytes = 128;  // of one vector
constexpr int kColumnBytes = 16;
constexpr int kStepBytes = 32;  // of one matrix instruction: 32 int8 or 16 float16
constexpr int kStageColumns = kStageBytes / kColumnBytes;
constexpr int kCoreRows = 8;
constexpr int kCoreBytes = kCoreRows * kColumnBytes;  // between core matrices of other vectors

// Between core matrices of other columns.
KTFAST_HD constexpr int leading_bytes(int tile_height) { return tile_height * kColumnBytes; }

KTFAST_HD constexpr int64_t ceil_divide(int64_t value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

// At least one, of zeros, where there are no features.
KTFAST_HD constexpr int64_t stages_of(int64_t n_features, int feature_bytes) {
  return n_features > 0 ? ceil_divide(n_features * feature_bytes, kStageBytes) : 1;
}

// Of a tile of the given height, from its codes' start.
KTFAST_HD constexpr int64_t tile_bytes(int tile_height, int64_t n_stages) {
  return int64_t{tile_height} * kStageBytes * n_stages;
}

// Where column `column` of vector `index` starts.
KTFAST_HD constexpr int64_t column_offset(int tile_height, int64_t n_stages, int64_t index,
                                          int64_t column) {
  const int64_t tile = index / tile_height * tile_bytes(tile_height, n_stages);
  return tile + (column * tile_height + index % tile_height) * kColumnBytes;
}

// --- The order of the tiles of products ---------------------------------------------------------

// Blocks that run at the same time take row tiles of one band, and all of its row tiles before the
// next centre tile: a band's codes and all centres' stay in the L2 cache, and come from the
// device's memory once a band.
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
