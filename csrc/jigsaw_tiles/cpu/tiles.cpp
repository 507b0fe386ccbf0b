#include "jigsaw_tiles/jigsaw_tiles.h"

#include <algorithm>
#include <atomic>

#if defined(KTFAST_X86_SIMD)
#include <xmmintrin.h>
#endif

#include "common/check.h"
#include "common/cpu_features.h"
#include "common/parallel.h"
#include "jigsaw_tiles/cpu/tile_kernels.h"
#include "jigsaw_tiles/tile_choices.h"
#include "jigsaw_tiles/tile_lane.h"
#include "jigsaw_tiles/tile_math.h"

namespace ktfast::cpu {
namespace {

// Outputs above this size bypass the caches, because they would evict everything else. That reduces
// the time per image from 37 to 30 us (float32, 9 tiles of 64 px, batch 128, one Zen 4 core).
constexpr int64_t kStreamBytes = int64_t{8} << 20;
// Images up to this size are fetched ahead if their tiles cover at least a sixth of their pixels.
// With images of 300 px and float16 outputs, fetching raises the rate from 27.6k to 44.8k images/s
// for tiles of 64 px and from 27.2k to 44.5k for tiles of 48 px (23 % of the pixels). For tiles of
// 32 px (10 %) it would lower the rate from 69.1k to 57.4k.
constexpr int64_t kFetchBytes = int64_t{512} << 10;
constexpr int64_t kFetchShare = 6;
// The choices of an image take as long as this many additions.
constexpr int64_t kChoiceOperations = 1 << 10;
// The tiles are divided into this many ranges per thread. Slower threads make fewer ranges.
constexpr int kRangesPerThread = 4;

// The scalar kernels process whole tiles. They keep no numerators and read the image twice.
void read_tile(const TileSource& source, TileRows /*rows*/, FetchAhead* /*ahead*/,
               int16_t* /*kept*/, RowSums* sums) {
  sums->total = sum_lane(source, 0, 1);
}

TileSums total_sums(const TileSource& /*source*/, RowSums* sums) { return sums->total; }

template <TileDtype dtype>
void write_as(const TileSource& source, const TileScaling& f, const TileTarget& target) {
  write_lane<dtype>(source, f, target.channels_last, 0, 1,
                    static_cast<typename Output<dtype>::Type*>(target.out));
}

void write_tile(const TileSource& source, TileRows /*rows*/, const int16_t* /*kept*/,
                const TileScaling& f, const TileTarget& target) {
  switch (target.dtype) {
    case TileDtype::float32:
      return write_as<TileDtype::float32>(source, f, target);
    case TileDtype::float16:
      return write_as<TileDtype::float16>(source, f, target);
    case TileDtype::bfloat16:
      return write_as<TileDtype::bfloat16>(source, f, target);
  }
}

TileKernels best_kernels() {
#if defined(KTFAST_X86_SIMD)
  if (simd_level() >= SimdLevel::avx512) return tile_kernels_avx512();
  if (simd_level() >= SimdLevel::avx2) return tile_kernels_avx2();
#elif defined(KTFAST_ARM_SIMD)
  if (simd_level() == SimdLevel::neon) return tile_kernels_neon();
#endif
  return tile_kernels_scalar();
}

int64_t element_bytes(TileDtype dtype) { return dtype == TileDtype::float32 ? 4 : 2; }

// The memory to fetch while a tile of `row` is read: a share of the next row's image, and the next
// row's tile of the same slot if that tile comes from another image.
FetchAhead fetch_ahead(const JigsawTilesParams& p, int64_t row, int32_t slot) {
  const int64_t n_tiles = int64_t{p.grid} * p.grid;
  const int64_t bytes = p.height * p.width * 3;
  const int64_t tile_bytes = int64_t{3} * p.tile_size * p.tile_size;
  const int64_t image = row + 1 < p.batch ? image_of(p, row + 1) : -1;
  FetchAhead ahead;
  if (image < 0 || bytes > kFetchBytes || bytes > kFetchShare * n_tiles * tile_bytes) return ahead;
  const uint8_t* first = p.images + image * bytes;
  ahead.next = first + bytes * slot / n_tiles;
  ahead.end = first + bytes * (slot + 1) / n_tiles;
  ahead.bytes_per_row = bytes / (n_tiles * p.tile_size) + 1;
  if (p.occluded[(row + 1) * n_tiles + slot] != 0) {
    const TileSource source = stored_tile_source(p, row + 1, slot);
    ahead.lent = source.channel[1];
    ahead.lent_bytes = 3 * int64_t{source.size};
    ahead.image_row_bytes = source.row_bytes;
  }
  return ahead;
}

// The state of a tile from the first row that is read to the last row that is written.
struct TileInWork {
  TileSource source;
  FetchAhead ahead;
  RowSums sums;
  int16_t* kept;
  TileTarget target;

  bool has_image() const { return source.channel[0] != nullptr; }
};

TileInWork begin_tile(const JigsawTilesParams& p, int64_t tile, bool stream, int16_t* kept) {
  const int64_t n_tiles = int64_t{p.grid} * p.grid;
  const int64_t row = tile / n_tiles;
  const int32_t slot = static_cast<int32_t>(tile % n_tiles);
  const int64_t bytes = int64_t{3} * p.tile_size * p.tile_size * element_bytes(p.dtype);
  char* out = static_cast<char*>(p.tiles) + tile * bytes;
  const TileInWork begun{stored_tile_source(p, row, slot),
                         fetch_ahead(p, row, slot),
                         RowSums(),
                         kept,
                         {out, p.dtype, p.channels_last, stream}};
  if (!begun.has_image()) clear_lane(static_cast<int32_t>(bytes), 0, 1, out);
  return begun;
}

// Makes the tiles first .. last - 1. Reads some rows of a tile, then writes as many rows of the
// previous tile, and so on.
void make_tiles(const JigsawTilesParams& p, const TileKernels& kernels, int64_t first, int64_t last,
                bool stream, int16_t* kept) {
  TileInWork work[2];
  for (int64_t tile = first; tile <= last; ++tile) {
    TileInWork& next = work[tile % 2];
    TileInWork& done = work[(tile + 1) % 2];
    if (tile < last) next = begin_tile(p, tile, stream, kept + tile % 2 * kept_size(p.tile_size));
    const bool reads = tile < last && next.has_image();
    const bool writes = tile > first && done.has_image();
    TileScaling scaling{};
    if (writes) {
      const TileSums sums = kernels.total(done.source, &done.sums);
      scaling = tile_scaling(sums, p.statistics, done.source.color, p.tile_size);
    }
    for (int32_t y = 0; y < p.tile_size; y += kernels.rows_in_turn) {
      const TileRows rows{y, std::min(y + kernels.rows_in_turn, p.tile_size)};
      if (reads) {
        kernels.read(next.source, rows, &next.ahead, next.kept, &next.sums);
      }
      if (writes) kernels.write(done.source, rows, done.kept, scaling, done.target);
    }
  }
}

void choose(const JigsawTilesParams& p, int64_t row) {
  const RowDraws draws{p, row};
  const RowChoices choices = choose_row(p, row, draws);
  store_row(p, row, choices);
  for (int32_t slot = 0; slot < p.grid * p.grid; ++slot) {
    store_slot(p, row, slot, choose_slot(p, choices, slot, draws));
  }
}

// Makes a thread's streamed stores visible before the thread signals other threads.
void publish_streamed_stores() {
#if defined(KTFAST_X86_SIMD)
  _mm_sfence();
#endif
}

}  // namespace

TileKernels tile_kernels_scalar() { return {&read_tile, &total_sums, &write_tile, kMaxTileSize}; }

int64_t jigsaw_tiles_workspace_size(int64_t tile_size, int64_t n_threads) {
  KTFAST_CHECK(tile_size >= 1 && tile_size <= kMaxTileSize, "tile_size must be 1 to 512");
  KTFAST_CHECK(n_threads >= 1 && n_threads <= INT32_MAX, "n_threads must be 1 to 2^31 - 1");
  return n_threads * 2 * kept_size(static_cast<int32_t>(tile_size)) + kKeptAlignment / 2;
}

void jigsaw_tiles(const JigsawTilesParams& p) {
  check_params(p);
  KTFAST_CHECK(p.workspace_size >= jigsaw_tiles_workspace_size(p.tile_size, p.n_threads),
               "workspace is too small for this tile_size and n_threads");
  if (p.batch == 0) return;
  const TileKernels kernels = best_kernels();
  const int64_t tiles = p.batch * p.grid * p.grid;
  const int64_t elements = int64_t{3} * p.tile_size * p.tile_size;
  const bool stream = tiles * elements * element_bytes(p.dtype) >= kStreamBytes;
  const auto start = reinterpret_cast<uintptr_t>(p.workspace);
  int16_t* const aligned = p.workspace + (kKeptAlignment - start % kKeptAlignment) / 2;
  for_ranges(worthwhile_threads(p.n_threads, p.batch * kChoiceOperations), p.batch,
             [&](int64_t first, int64_t last, int) {
               for (int64_t row = first; row < last; ++row) choose(p, row);
             });
  // While the last tile of a range is written, no other tile is read. So there are few ranges.
  const int64_t n_ranges =
      p.n_threads == 1 ? 1 : std::min<int64_t>(tiles, int64_t{kRangesPerThread} * p.n_threads);
  std::atomic<int64_t> n_taken{0};
  in_threads(p.n_threads, [&](int thread) {
    for (int64_t i = n_taken++; i < n_ranges; i = n_taken++) {
      make_tiles(p, kernels, tiles * i / n_ranges, tiles * (i + 1) / n_ranges, stream,
                 aligned + thread * 2 * kept_size(p.tile_size));
    }
    publish_streamed_stores();
  });
}

}  // namespace ktfast::cpu
