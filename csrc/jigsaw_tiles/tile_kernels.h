// The two inner loops of a tile on the CPU, one implementation per instruction-set level.
#pragma once

#include <cstdint>

#include "jigsaw_tiles/tile_math.h"

namespace ktfast::cpu {

struct TileKernels {
  // Writes the numerators of a tile in output order (planar or interleaved) and returns their sums.
  TileSums (*read)(const TileSource& source, bool channels_last, int16_t* kept);
  // Writes n outputs; element i is scaled by channel i % 3 of `scaling`. `stream`: past the caches.
  void (*write)(const int16_t* kept, int64_t n, const TileScaling& scaling, TileDtype dtype,
                bool stream, void* out);
};

TileKernels tile_kernels_scalar();
TileKernels tile_kernels_avx2();

}  // namespace ktfast::cpu
