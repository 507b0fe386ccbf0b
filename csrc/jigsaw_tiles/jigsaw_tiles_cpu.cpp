#include "jigsaw_tiles/jigsaw_tiles.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "common/check.h"
#include "common/cpu_features.h"
#include "jigsaw_tiles/tile_choices.h"
#include "jigsaw_tiles/tile_kernels.h"
#include "jigsaw_tiles/tile_lane.h"
#include "jigsaw_tiles/tile_math.h"

namespace ktfast::cpu {
namespace {

// Outputs above this size would only push everything else out of the caches, so they are written
// past them: 66 -> 58 us an image to float32, 9 tiles of 64 px, batch 128, one Zen 5 core.
constexpr int64_t kStreamBytes = int64_t{8} << 20;

TileSums read_tile(const TileSource& source, bool channels_last, int16_t* kept) {
  return read_lane<true>(source, channels_last, 0, 1, kept);
}

template <TileDtype dtype>
void write_as(const int16_t* kept, int64_t n, const TileScaling& f, void* out) {
  auto* to = static_cast<typename Output<dtype>::Type*>(out);
  for (int64_t i = 0; i < n; ++i) {
    to[i] = Output<dtype>::from(normalised(kept[i], f.mean[i % 3], f.inverse[i % 3]));
  }
}

void write_tile(const int16_t* kept, int64_t n, const TileScaling& f, TileDtype dtype,
                bool /*stream*/, void* out) {
  switch (dtype) {
    case TileDtype::float32:
      return write_as<TileDtype::float32>(kept, n, f, out);
    case TileDtype::float16:
      return write_as<TileDtype::float16>(kept, n, f, out);
    case TileDtype::bfloat16:
      return write_as<TileDtype::bfloat16>(kept, n, f, out);
  }
}

TileKernels best_kernels() {
#if defined(KTFAST_X86_SIMD)
  if (simd_level() >= SimdLevel::avx2) return tile_kernels_avx2();
#endif
  return tile_kernels_scalar();
}

int64_t element_bytes(TileDtype dtype) { return dtype == TileDtype::float32 ? 4 : 2; }

// Cuts, colours, normalises and writes one tile through the L1-sized buffer `kept`.
void make_tile(const JigsawTilesParams& p, const TileKernels& kernels, int64_t tile, bool stream,
               int16_t* kept) {
  const int64_t n_tiles = int64_t{p.grid} * p.grid;
  const int64_t plane = int64_t{p.tile_size} * p.tile_size;
  const int64_t bytes = element_bytes(p.dtype);
  char* out = static_cast<char*>(p.tiles) + tile * 3 * plane * bytes;
  const TileSource source = tile_source(p, tile / n_tiles, static_cast<int32_t>(tile % n_tiles));
  if (source.channel[0] == nullptr) {
    clear_lane(static_cast<int32_t>(3 * plane * bytes), 0, 1, out);
    return;
  }
  const TileSums sums = kernels.read(source, p.channels_last, kept);
  const TileScaling scaling = tile_scaling(sums, p.statistics, source.color, p.tile_size);
  if (p.channels_last || p.statistics != TileStatistics::channel) {
    kernels.write(kept, 3 * plane, scaling, p.dtype, stream, out);
    return;
  }
  for (int c = 0; c < 3; ++c) {
    const float mean = scaling.mean[c];
    const float inverse = scaling.inverse[c];
    kernels.write(kept + c * plane, plane, {{mean, mean, mean}, {inverse, inverse, inverse}},
                  p.dtype, stream, out + c * plane * bytes);
  }
}

}  // namespace

TileKernels tile_kernels_scalar() { return {&read_tile, &write_tile}; }

void jigsaw_tiles(const JigsawTilesParams& p) {
  check_params(p);
  KTFAST_CHECK(p.n_threads >= 1, "n_threads must be at least 1");
  if (p.batch == 0) return;
  const TileKernels kernels = best_kernels();
  const int64_t tiles = p.batch * p.grid * p.grid;
  const int64_t elements = int64_t{3} * p.tile_size * p.tile_size;
  const bool stream = tiles * elements * element_bytes(p.dtype) >= kStreamBytes;
#pragma omp parallel num_threads(p.n_threads)
  {
#pragma omp for schedule(static)
    for (int64_t row = 0; row < p.batch; ++row) choose_row(p, row);
#if defined(_OPENMP)
    int16_t* kept = p.workspace + omp_get_thread_num() * elements;
#else
    int16_t* kept = p.workspace;
#endif
#pragma omp for schedule(static)
    for (int64_t tile = 0; tile < tiles; ++tile) make_tile(p, kernels, tile, stream, kept);
  }
}

}  // namespace ktfast::cpu
