// One lane's share of the work on a tile. On a GPU a lane is one thread of the tile's block. The
// CPU's scalar kernels do the whole tile as lane 0 of 1. A test runs the 256 lanes of a block on
// the host.
#pragma once

#include <cstdint>

#include "common/host_device.h"
#include "jigsaw_tiles/tile_math.h"

namespace ktfast {

// --- From the image to the block's own memory ---

// The rectangle of an image that contains the three channels of a tile. A row of the rectangle may
// start at any address. The lanes copy 16 aligned bytes at a time, so a row of the copy has the
// same address modulo 16 as the original row.
struct TileStage {
  const uint8_t* first;  // first byte of the rectangle
  int64_t row_bytes;
  int32_t rows;
  int32_t used;   // bytes of a row
  int32_t start;  // offset of the first row in the copy
  int32_t pitch;  // distance between two rows of the copy
  int32_t y[3];   // where each channel's tile starts in the rectangle
  int32_t x[3];
};

struct alignas(16) Bytes16 {
  uint32_t words[4];
};

KTFAST_HD int32_t modulo16(int64_t value) { return static_cast<int32_t>(value & 15); }
KTFAST_HD int32_t modulo16(const uint8_t* address) {
  return modulo16(static_cast<int64_t>(reinterpret_cast<uintptr_t>(address)));
}

KTFAST_HD TileStage tile_stage(const TileSource& s, const int32_t (&offsets)[3][2]) {
  TileStage g{};
  int32_t low[2] = {offsets[0][0], offsets[0][1]};
  int32_t high[2] = {offsets[0][0], offsets[0][1]};
  for (int c = 1; c < 3; ++c) {
    for (int axis = 0; axis < 2; ++axis) {
      if (offsets[c][axis] < low[axis]) low[axis] = offsets[c][axis];
      if (offsets[c][axis] > high[axis]) high[axis] = offsets[c][axis];
    }
  }
  for (int c = 0; c < 3; ++c) {
    g.y[c] = offsets[c][0] - low[0];
    g.x[c] = offsets[c][1] - low[1];
  }
  g.first = s.channel[0] - g.y[0] * s.row_bytes - 3 * g.x[0];
  g.row_bytes = s.row_bytes;
  g.rows = s.size + high[0] - low[0];
  g.used = 3 * (s.size + high[1] - low[1]);
  g.start = modulo16(g.first);
  g.pitch = g.used + 30;  // so that the aligned bytes of two rows do not overlap
  g.pitch += modulo16(s.row_bytes - g.pitch);
  return g;
}

// The largest number of bytes that the copy of a tile takes.
KTFAST_HD int64_t stage_size(int32_t tile_size, int32_t chroma_shift) {
  const int64_t side = int64_t{tile_size} + chroma_shift;
  return side * (3 * side + 45) + 32;
}

// Copies the lane's share to `copy`, which is aligned to 16 bytes. Reads nothing outside the
// images, which extend from `begin` to `end`.
KTFAST_HD void stage_lane(const TileStage& g, const uint8_t* begin, const uint8_t* end,
                          int32_t lane, int32_t n_lanes, uint8_t* copy) {
  const int32_t units = (g.used + 30) / 16;  // that a row touches at most
  for (int32_t i = lane; i < g.rows * units; i += n_lanes) {
    const int32_t y = i / units;
    const uint8_t* row = g.first + y * g.row_bytes;
    const int32_t at = 16 * (i % units) - modulo16(row);
    if (at >= g.used) continue;
    const uint8_t* from = row + at;
    uint8_t* to = copy + g.start + y * g.pitch + at;
    if (from >= begin && end - from >= 16) {
      *reinterpret_cast<Bytes16*>(to) = *reinterpret_cast<const Bytes16*>(from);
      continue;
    }
    for (int32_t b = 0; b < 16; ++b) {
      if (from + b >= begin && from + b < end) to[b] = from[b];
    }
  }
}

KTFAST_HD TileSource staged_source(const TileStage& g, const TileSource& s, const uint8_t* copy) {
  TileSource staged = s;
  staged.row_bytes = g.pitch;
  for (int c = 0; c < 3; ++c) {
    staged.channel[c] = copy + g.start + g.y[c] * g.pitch + 3 * g.x[c];
  }
  return staged;
}

// --- From pixels to sums and outputs ---

// Visits the pixels lane, lane + n_lanes, ... of a tile without a division per pixel.
struct PixelWalk {
  int32_t size, step_x, step_y, y, x;

  KTFAST_HD PixelWalk(int32_t tile_size, int32_t lane, int32_t n_lanes)
      : size(tile_size),
        step_x(n_lanes % tile_size),
        step_y(n_lanes / tile_size),
        y(lane / tile_size),
        x(lane % tile_size) {}

  KTFAST_HD bool inside() const { return y < size; }
  KTFAST_HD void next() {
    x += step_x;
    y += step_y;
    if (x >= size) {
      x -= size;
      ++y;
    }
  }
};

KTFAST_HD Pixel read_pixel(const TileSource& s, int32_t y, int32_t x) {
  const int64_t from = y * s.row_bytes + x * 3;
  return numerators(s.color, s.channel[0][from], s.channel[1][from + 1], s.channel[2][from + 2]);
}

KTFAST_HD TileSums sum_lane(const TileSource& s, int32_t lane, int32_t n_lanes) {
  TileSums sums;
  for (PixelWalk at(s.size, lane, n_lanes); at.inside(); at.next()) {
    const Pixel pixel = read_pixel(s, at.y, at.x);
    for (int c = 0; c < 3; ++c) {
      sums.sum[c] += pixel.value[c];
      sums.square[c] += int64_t{pixel.value[c]} * pixel.value[c];
    }
  }
  return sums;
}

// Elements that fill 16 bytes.
template <class T>
struct alignas(16) Pack {
  static constexpr int32_t n = 16 / sizeof(T);
  T v[n];
};

// Selects without indexing, because registers cannot be indexed at run time.
template <class T>
KTFAST_HD T pick(const T (&v)[3], int32_t c) {
  return c == 0 ? v[0] : c == 1 ? v[1] : v[2];
}

// Writes a pack of neighbouring pixels to each of the three planes.
template <TileDtype dtype>
KTFAST_HD void write_planes(const TileSource& s, const TileScaling& f, int32_t lane,
                            int32_t n_lanes, typename Output<dtype>::Type* out) {
  using T = typename Output<dtype>::Type;
  constexpr int32_t n = Pack<T>::n;
  const int32_t plane = s.size * s.size;
  for (int32_t i = lane * n; i < plane; i += n_lanes * n) {
    Pack<T> to[3];
    int32_t y = i / s.size;
    int32_t x = i % s.size;
    for (int32_t j = 0; j < n; ++j) {
      const Pixel pixel = read_pixel(s, y, x);
      for (int c = 0; c < 3; ++c) {
        to[c].v[j] = Output<dtype>::from(normalised(pixel.value[c], f.mean[c], f.inverse[c]));
      }
      if (++x == s.size) {
        x = 0;
        ++y;
      }
    }
    for (int c = 0; c < 3; ++c) *reinterpret_cast<Pack<T>*>(out + c * plane + i) = to[c];
  }
}

// Writes a pack of neighbouring outputs, three per pixel.
template <TileDtype dtype>
KTFAST_HD void write_interleaved(const TileSource& s, const TileScaling& f, int32_t lane,
                                 int32_t n_lanes, typename Output<dtype>::Type* out) {
  using T = typename Output<dtype>::Type;
  constexpr int32_t n = Pack<T>::n;
  const int32_t total = 3 * s.size * s.size;
  for (int32_t i = lane * n; i < total; i += n_lanes * n) {
    Pack<T> to;
    int32_t c = i % 3;
    int32_t y = i / 3 / s.size;
    int32_t x = i / 3 % s.size;
    Pixel pixel = read_pixel(s, y, x);
    for (int32_t j = 0; j < n; ++j) {
      if (c == 3) {
        c = 0;
        if (++x == s.size) {
          x = 0;
          ++y;
        }
        pixel = read_pixel(s, y, x);
      }
      const float value = normalised(pick(pixel.value, c), pick(f.mean, c), pick(f.inverse, c));
      to.v[j] = Output<dtype>::from(value);
      ++c;
    }
    *reinterpret_cast<Pack<T>*>(out + i) = to;
  }
}

// The position of channel c of a pixel in a tile, planar or interleaved.
KTFAST_HD int32_t element_index(bool channels_last, int32_t size, int32_t pixel, int32_t c) {
  return channels_last ? pixel * 3 + c : c * size * size + pixel;
}

template <TileDtype dtype>
KTFAST_HD void write_elements(const TileSource& s, const TileScaling& f, bool channels_last,
                              int32_t lane, int32_t n_lanes, typename Output<dtype>::Type* out) {
  for (PixelWalk at(s.size, lane, n_lanes); at.inside(); at.next()) {
    const Pixel pixel = read_pixel(s, at.y, at.x);
    for (int c = 0; c < 3; ++c) {
      out[element_index(channels_last, s.size, at.y * s.size + at.x, c)] =
          Output<dtype>::from(normalised(pixel.value[c], f.mean[c], f.inverse[c]));
    }
  }
}

// Writes the lane's share of a tile: 16 bytes at a time if the tile and each of its planes are
// aligned to 16 bytes, else element by element.
template <TileDtype dtype>
KTFAST_HD void write_lane(const TileSource& s, const TileScaling& f, bool channels_last,
                          int32_t lane, int32_t n_lanes, typename Output<dtype>::Type* out) {
  constexpr int32_t n = Pack<typename Output<dtype>::Type>::n;
  const bool aligned = reinterpret_cast<uintptr_t>(out) % 16 == 0;
  // Three planes hold a whole number of packs only if one plane does.
  if (!aligned || s.size * s.size % n != 0) {
    write_elements<dtype>(s, f, channels_last, lane, n_lanes, out);
  } else if (channels_last) {
    write_interleaved<dtype>(s, f, lane, n_lanes, out);
  } else {
    write_planes<dtype>(s, f, lane, n_lanes, out);
  }
}

template <class T>
KTFAST_HD void clear_lane(int32_t total, int32_t lane, int32_t n_lanes, T* out) {
  for (int32_t i = lane; i < total; i += n_lanes) out[i] = T{};
}

}  // namespace ktfast
