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

// Visits the pixels first, first + step, ... of a tile without a division or product per pixel.
struct PixelWalk {
  int32_t size, step_x, step_y, y, x;
  int64_t offset, step, wrap;  // bytes from the tile's first pixel; their changes

  KTFAST_HD PixelWalk(const TileSource& s, int32_t first_pixel, int32_t step_pixels)
      : size(s.size),
        step_x(step_pixels % s.size),
        step_y(step_pixels / s.size),
        y(first_pixel / s.size),
        x(first_pixel % s.size),
        offset(y * s.row_bytes + 3 * x),
        step(step_y * s.row_bytes + 3 * step_x),
        wrap(s.row_bytes - 3 * s.size) {}

  KTFAST_HD bool inside() const { return y < size; }
  KTFAST_HD void next() {
    x += step_x;
    y += step_y;
    offset += step;
    if (x >= size) {
      x -= size;
      ++y;
      offset += wrap;
    }
  }
};

// Reads n neighbouring pixels, which may continue in the next row of the tile. If `whole`, they lie
// in one row, so the places of all bytes but the first three are constants.
template <int32_t n, bool whole>
KTFAST_HD void read_pixels(const TileSource& s, const ColorWeights& weights, const PixelWalk& at,
                           Pixel (&pixels)[n]) {
  const uint8_t* r = s.channel[0] + at.offset;
  const uint8_t* g = s.channel[1] + at.offset;
  const uint8_t* b = s.channel[2] + at.offset;
  int32_t x = at.x;
  KTFAST_UNROLL
  for (int32_t j = 0; j < n; ++j) {
    pixels[j] = weighted(weights, r[3 * j], g[3 * j + 1], b[3 * j + 2]);
    if (whole || ++x < s.size) continue;
    x = 0;
    r += at.wrap;
    g += at.wrap;
    b += at.wrap;
  }
}

// Adds up the lane's groups of n neighbouring pixels.
//
// Sums of kSumPixels pixels have 32 bits: a square is at most 1785^2, below 2^32 / kSumPixels.
constexpr int32_t kSumPixels = 1024;

template <int32_t n>
KTFAST_HD TileSums sum_groups(const TileSource& s, int32_t lane, int32_t n_lanes) {
  const ColorWeights weights = color_weights(s.color);
  TileSums sums;
  for (PixelWalk at(s, lane * n, n_lanes * n); at.inside();) {
    int32_t sum[3] = {0, 0, 0};
    uint32_t square[3] = {0, 0, 0};
    for (int32_t left = kSumPixels / n; left > 0 && at.inside(); --left, at.next()) {
      Pixel pixels[n];
      read_pixels<n, true>(s, weights, at, pixels);
      KTFAST_UNROLL
      for (int32_t j = 0; j < n; ++j) {
        for (int c = 0; c < 3; ++c) {
          const int32_t value = pixels[j].value[c];
          sum[c] += value;
          square[c] += static_cast<uint32_t>(value * value);
        }
      }
    }
    for (int c = 0; c < 3; ++c) {
      sums.sum[c] += sum[c];
      sums.square[c] += square[c];
    }
  }
  return sums;
}

KTFAST_HD TileSums sum_lane(const TileSource& s, int32_t lane, int32_t n_lanes) {
  return s.size % 4 == 0 ? sum_groups<4>(s, lane, n_lanes) : sum_groups<1>(s, lane, n_lanes);
}

// Elements that fill 16 bytes.
template <class T>
struct alignas(16) Pack {
  static constexpr int32_t n = 16 / sizeof(T);
  T v[n];
};

// Writes groups of neighbouring pixels, as many as a pack has elements: one pack to each of the
// three planes, or three packs one after another if `last`. So the channel of every element is a
// constant.
template <TileDtype dtype, bool last, bool whole>
KTFAST_HD void write_groups(const TileSource& s, const TileScaling& f, int32_t lane,
                            int32_t n_lanes, typename Output<dtype>::Type* out) {
  using T = typename Output<dtype>::Type;
  constexpr int32_t n = Pack<T>::n;
  const ColorWeights weights = color_weights(s.color);
  const int32_t plane = s.size * s.size;
  PixelWalk at(s, lane * n, n_lanes * n);
  for (int32_t i = lane * n; i < plane; i += n_lanes * n, at.next()) {
    Pixel pixels[n];
    read_pixels<n, whole>(s, weights, at, pixels);
    Pack<T> to[3];
    KTFAST_UNROLL
    for (int32_t j = 0; j < n; ++j) {
      KTFAST_UNROLL
      for (int c = 0; c < 3; ++c) {
        const int32_t place = last ? 3 * j + c : n * c + j;
        to[place / n].v[place % n] =
            Output<dtype>::from(normalised(pixels[j].value[c], f.mean[c], f.inverse[c]));
      }
    }
    KTFAST_UNROLL
    for (int c = 0; c < 3; ++c) {
      *reinterpret_cast<Pack<T>*>(out + (last ? 3 * i + c * n : c * plane + i)) = to[c];
    }
  }
}

template <TileDtype dtype>
KTFAST_HD void write_elements(const TileSource& s, const TileScaling& f, bool channels_last,
                              int32_t lane, int32_t n_lanes, typename Output<dtype>::Type* out) {
  using T = typename Output<dtype>::Type;
  const ColorWeights weights = color_weights(s.color);
  const int32_t apart = channels_last ? 1 : s.size * s.size;  // two channels of a pixel
  const int32_t step = channels_last ? 3 : 1;                 // the same channel of two pixels
  T* const first[3] = {out, out + apart, out + 2 * apart};
  int32_t i = lane * step;
  for (PixelWalk at(s, lane, n_lanes); at.inside(); at.next(), i += n_lanes * step) {
    Pixel pixel[1];
    read_pixels<1, true>(s, weights, at, pixel);
    KTFAST_UNROLL
    for (int c = 0; c < 3; ++c) {
      first[c][i] = Output<dtype>::from(normalised(pixel[0].value[c], f.mean[c], f.inverse[c]));
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
  } else if (s.size % n != 0) {
    channels_last ? write_groups<dtype, true, false>(s, f, lane, n_lanes, out)
                  : write_groups<dtype, false, false>(s, f, lane, n_lanes, out);
  } else {
    channels_last ? write_groups<dtype, true, true>(s, f, lane, n_lanes, out)
                  : write_groups<dtype, false, true>(s, f, lane, n_lanes, out);
  }
}

template <class T>
KTFAST_HD void clear_lane(int32_t total, int32_t lane, int32_t n_lanes, T* out) {
  for (int32_t i = lane; i < total; i += n_lanes) out[i] = T{};
}

}  // namespace ktfast
