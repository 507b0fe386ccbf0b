// The two inner loops of a tile on the CPU, one implementation per instruction-set level, and the
// data that the first loop keeps for the second.
#pragma once

#include <cstdint>

#include "common/host_device.h"
#include "jigsaw_tiles/tile_math.h"

namespace ktfast::cpu {

// Each level has its own layout of a tile's kept numerators. A store of a vector may write this
// many numbers beyond a channel's plane.
inline constexpr int64_t kPlaneSpill = 32;
inline constexpr int64_t kKeptAlignment = 64;  // bytes

// The distance between the planes of two channels, and the size of a tile's buffer, in int16
// numbers.
KTFAST_HD int64_t plane_pitch(int32_t tile_size) {
  return int64_t{tile_size} * tile_size + kPlaneSpill;
}
KTFAST_HD int64_t kept_size(int32_t tile_size) {
  constexpr int64_t kStep = kKeptAlignment / sizeof(int16_t);
  return (3 * plane_pitch(tile_size) + kStep - 1) / kStep * kStep;
}

// Prefetches every cache line of a row of bytes. `locality` 3 means the first-level cache, 2 the
// second-level cache.
template <int locality>
KTFAST_HD void fetch_row(const uint8_t* first, int64_t bytes) {
  for (int64_t at = 0; at < bytes + 64; at += 64) __builtin_prefetch(first + at, 0, locality);
}

// The memory that is fetched into the second-level cache while a tile is read: a share for each row
// of the tile. The hardware prefetcher does not foresee the rows of a tile, because they lie too
// far apart. So the loop fetches the next image in order, unused pixels included. One Zen 4 core
// reads a tile of 64 px in 4.5 us without fetching ahead. If the image was fetched ahead, the core
// takes 1.3 us, which includes fetching a ninth of the next image.
struct FetchAhead {
  const uint8_t* next = nullptr;  // next byte to fetch, up to `end`
  const uint8_t* end = nullptr;
  int64_t bytes_per_row = 0;
  const uint8_t* lent = nullptr;  // next row of a tile lent by another image; nullptr: none
  int64_t lent_bytes = 0;
  int64_t image_row_bytes = 0;

  KTFAST_HD void row() {
    const uint8_t* stop = end - next > bytes_per_row ? next + bytes_per_row : end;
    const uint8_t* at = next;  // a local copy can stay in a register
    for (; at < stop; at += 64) __builtin_prefetch(at, 0, 2);
    next = at;
    if (lent == nullptr) return;
    fetch_row<2>(lent, lent_bytes);
    lent += image_row_bytes;
  }
};

// The memory that a tile is written to.
struct TileTarget {
  void* out;
  TileDtype dtype;
  bool channels_last;
  bool stream;  // bypass the caches; a store fence must follow before other threads read the tile
};

// Rows first .. last - 1 of a tile.
struct TileRows {
  int32_t first;
  int32_t last;
};

// The sums of the rows read so far: 32-bit lanes, and the 64-bit sums that the lanes are added to.
struct RowSums {
  alignas(64) int32_t lanes[3][2][16] = {};  // sums of numbers and of squares, per channel
  int32_t steps = 0;                         // since the lanes were set to 0
  TileSums total;
};

struct TileKernels {
  // Keeps the numerators of some rows of a tile in `kept` and adds them to the sums.
  void (*read)(const TileSource& source, TileRows rows, FetchAhead* ahead, int16_t* kept,
               RowSums* sums);
  // Returns the sums of all rows.
  TileSums (*total)(const TileSource& source, RowSums* sums);
  // Writes the outputs of some rows of a tile that was read.
  void (*write)(const TileSource& source, TileRows rows, const int16_t* kept,
                const TileScaling& scaling, const TileTarget& target);
  // How many rows `read` and `write` process at a time, in turn.
  int32_t rows_in_turn;
};

TileKernels tile_kernels_scalar();
TileKernels tile_kernels_avx2();
TileKernels tile_kernels_avx512();
TileKernels tile_kernels_neon();

}  // namespace ktfast::cpu
