// The tile registers of AMX: eight registers of 16 rows of 64 bytes for each thread.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace avx512_emulation {

struct Tile {
  char bytes[16][64];
};

struct Tiles {
  bool configured = false;
  Tile tile[8];

  Tile& operator[](int i) {
    if (!configured) throw std::logic_error("a tile register is used without a configuration");
    return tile[i];
  }
};
inline thread_local Tiles tiles;

// Accepts whole registers only, because the kernels configure no others.
inline void tile_loadconfig(const void* config) {
  const auto* bytes = static_cast<const unsigned char*>(config);
  bool whole = bytes[0] == 1 && bytes[1] == 0;
  for (int i = 0; i < 8; ++i) {
    uint16_t width;
    std::memcpy(&width, bytes + 16 + 2 * i, sizeof width);
    whole = whole && width == 64 && bytes[48 + i] == 16;
  }
  if (!whole) throw std::logic_error("a tile configuration other than eight whole registers");
  tiles.configured = true;
  std::memset(tiles.tile, 0, sizeof tiles.tile);
}

inline void tile_release() { tiles.configured = false; }
inline void tile_zero(int to) { std::memset(&tiles[to], 0, sizeof(Tile)); }

inline void tile_loadd(int to, const void* from, int64_t stride) {
  for (int64_t row = 0; row < 16; ++row) {
    std::memcpy(tiles[to].bytes[row], static_cast<const char*>(from) + row * stride, 64);
  }
}

inline void tile_stored(int from, void* to, int64_t stride) {
  for (int64_t row = 0; row < 16; ++row) {
    std::memcpy(static_cast<char*>(to) + row * stride, tiles[from].bytes[row], 64);
  }
}

inline void tile_dpbsud(int to, int a, int b) {
  const auto* left = reinterpret_cast<const int8_t (*)[64]>(tiles[a].bytes);
  const auto* right = reinterpret_cast<const uint8_t (*)[64]>(tiles[b].bytes);
  auto* sums = reinterpret_cast<int32_t (*)[16]>(tiles[to].bytes);
  for (int m = 0; m < 16; ++m) {
    for (int k = 0; k < 64; ++k) {
      for (int n = 0; n < 16; ++n) sums[m][n] += left[m][k] * right[k / 4][4 * n + k % 4];
    }
  }
}

// Denormals count as zero in every floating-point environment.
inline float flushed(float value) {
  return std::fabs(value) < std::numeric_limits<float>::min() ? std::copysign(0.0f, value) : value;
}

inline float widened(uint16_t bfloat16) {
  const uint32_t bits = static_cast<uint32_t>(bfloat16) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return flushed(value);
}

// Even and odd products have separate sums, which are added at the end.
inline void tile_dpbf16ps(int to, int a, int b) {
  const auto* left = reinterpret_cast<const uint16_t (*)[32]>(tiles[a].bytes);
  const auto* right = reinterpret_cast<const uint16_t (*)[32]>(tiles[b].bytes);
  auto* out = reinterpret_cast<float (*)[16]>(tiles[to].bytes);
  for (int m = 0; m < 16; ++m) {
    float sums[32] = {};
    for (int k = 0; k < 32; ++k) {
      for (int n = 0; n < 16; ++n) {
        float& sum = sums[2 * n + k % 2];
        sum = flushed(std::fma(widened(left[m][k]), widened(right[k / 2][2 * n + k % 2]), sum));
      }
    }
    for (int n = 0; n < 16; ++n) {
      const float both = flushed(sums[2 * n] + sums[2 * n + 1]);
      out[m][n] = flushed(flushed(out[m][n]) + both);
    }
  }
}

}  // namespace avx512_emulation
