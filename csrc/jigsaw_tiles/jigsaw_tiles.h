// Contract of jigsaw_tiles: makes normalised, shuffled, partly occluded puzzle tiles from a batch
// of images.
//
// The random choices of every row are drawn first and written to arrays of the caller. The tiles
// are a function of the images and these arrays only.
#pragma once

#include <cstdint>

struct CUstream_st;

namespace ktfast {

enum class TileDtype : int32_t { float32, float16, bfloat16 };

// A tile is normalised by one mean and std, by one per channel, or by none (value / 255).
enum class TileStatistics : int32_t { tile, channel, none };

inline constexpr int32_t kMaxGrid = 4;
inline constexpr int32_t kMaxTileSize = 512;  // keeps n * sum(v^2) of a tile inside int64

struct JigsawTilesParams {
  int64_t batch;
  int64_t n_images;
  int64_t height;
  int64_t width;
  int64_t n_permutations;
  int32_t grid;          // cells per side; a puzzle has n_tiles = grid * grid
  int32_t tile_size;     // t, in pixels
  int32_t jitter;        // a tile starts 0..jitter pixels into its cell, per axis
  int32_t chroma_shift;  // each channel starts 0..chroma_shift pixels further, per axis
  int32_t max_occluders;
  uint64_t gray_threshold;        // probability times 2^32
  uint64_t projection_threshold;  // probability times 2^32, for images that are not gray
  bool donor_shares_color;
  bool channels_last;
  TileStatistics statistics;
  TileDtype dtype;
  uint64_t seed;
  uint32_t epoch;

  const uint8_t* images;      // [n_images, height, width, 3]
  const int64_t* indices;     // [batch], the image of each row; nullptr: row b is image b
  const int64_t* sample_ids;  // [batch]
  const uint8_t*
      permutations;  // [n_permutations, n_tiles]; slot s shows cell permutations[label][s]

  void* tiles;  // [batch, n_tiles, 3, t, t], or [batch, n_tiles, t, t, 3] if channels_last

  // The choices. An index outside the images gives label -1 and tiles of zeros.
  int64_t* labels;            // [batch]
  int32_t* offsets;           // [batch, n_tiles, 3, 2]; (y, x) inside the cell, per channel
  int32_t* cells;             // [batch, n_tiles]; cell of the image, or of the donor if occluded
  uint8_t* occluded;          // [batch, n_tiles]
  int64_t* donors;            // [batch]; row of the batch, -1: none
  uint8_t* gray;              // [batch]
  uint8_t* projection;        // [batch]
  uint8_t* donor_gray;        // [batch]; 0 without a donor
  uint8_t* donor_projection;  // [batch]; 0 without a donor

  int16_t* workspace;      // [workspace_size], CPU only
  int64_t workspace_size;  // at least jigsaw_tiles_workspace_size, CPU only
  int n_threads;           // CPU only
};

namespace cpu {
int64_t jigsaw_tiles_workspace_size(int64_t tile_size, int64_t n_threads);
void jigsaw_tiles(const JigsawTilesParams& p);
}  // namespace cpu
namespace cuda {
void jigsaw_tiles(const JigsawTilesParams& p, CUstream_st* stream);
}

}  // namespace ktfast
