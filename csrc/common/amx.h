// The tile registers of AMX. Only files in amx/ include this header.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace ktfast::cpu {
namespace {  // unnamed, because each including file is built with its own flags

// Configures eight registers of 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileConfig kWholeTiles;

// A thread may use the tile registers while its TileScope lives. Without a scope, the system need
// not save the registers when it switches threads.
struct TileScope {
  TileScope() { _tile_loadconfig(&kWholeTiles); }
  ~TileScope() { _tile_release(); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

}  // namespace
}  // namespace ktfast::cpu
