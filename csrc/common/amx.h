// AMX's tile registers, for files that are built for them.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace ktfast::cpu {
namespace {  // each including file is built for its own instructions

// All eight registers with 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileConfig kWholeTiles;

// While it lives, this thread may use them; afterwards they cost nothing at a change of threads.
struct TileScope {
  TileScope() { _tile_loadconfig(&kWholeTiles); }
  ~TileScope() { _tile_release(); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

}  // namespace
}  // namespace ktfast::cpu
