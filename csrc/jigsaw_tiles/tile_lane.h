// The share of one tile's work that falls to one lane of a group of lanes: a CUDA thread of a
// block, or the whole tile (lane 0 of 1) in the CPU's scalar path. A test runs it on the host for a
// block's 256 lanes.
#pragma once

#include <cstdint>

#include "common/host_device.h"
#include "jigsaw_tiles/tile_math.h"

namespace ktfast {

// Visits the pixels lane, lane + n_lanes, ... of a tile row by row without a division per pixel.
struct PixelWalk {
  int32_t size, step_x, step_y, y, x;

  KTFAST_HD PixelWalk(int32_t tile_size, int32_t lane, int32_t n_lanes)
      : size(tile_size),
        step_x(n_lanes % tile_size),
        step_y(n_lanes / tile_size),
        y(lane / tile_size),
        x(lane % tile_size) {}

  KTFAST_HD bool inside() const { return y < size; }
  KTFAST_HD int32_t index() const { return y * size + x; }
  KTFAST_HD void next() {
    x += step_x;
    y += step_y;
    if (x >= size) {
      x -= size;
      ++y;
    }
  }
};

KTFAST_HD Pixel read_pixel(const TileSource& s, const PixelWalk& at) {
  const int64_t from = at.y * s.row_bytes + at.x * 3;
  return numerators(s.color, s.channel[0][from], s.channel[1][from + 1], s.channel[2][from + 2]);
}

// Where channel c of a pixel stands in a tile, planar or interleaved.
KTFAST_HD int32_t element_index(bool channels_last, int32_t size, int32_t pixel, int32_t c) {
  return channels_last ? pixel * 3 + c : c * size * size + pixel;
}

// Reads the lane's pixels once: sums them and, if `staged`, keeps their numerators in output order.
template <bool staged>
KTFAST_HD TileSums read_lane(const TileSource& s, bool channels_last, int32_t lane, int32_t n_lanes,
                             int16_t* kept) {
  TileSums sums;
  for (PixelWalk at(s.size, lane, n_lanes); at.inside(); at.next()) {
    const Pixel pixel = read_pixel(s, at);
    for (int c = 0; c < 3; ++c) {
      const int32_t v = pixel.value[c];
      sums.sum[c] += v;
      sums.square[c] += int64_t{v} * v;
      if (staged) {
        kept[element_index(channels_last, s.size, at.index(), c)] = static_cast<int16_t>(v);
      }
    }
  }
  return sums;
}

// As many elements as fill 16 bytes.
template <class T>
struct alignas(16) Pack {
  static constexpr int32_t n = 16 / sizeof(T);
  T v[n];
};

// A register file has no run-time index.
KTFAST_HD float pick(const float (&v)[3], int32_t c) {
  return c == 0 ? v[0] : c == 1 ? v[1] : v[2];
}

KTFAST_HD int32_t channel_of(bool channels_last, int32_t plane, int32_t element) {
  return channels_last ? element % 3 : element < plane ? 0 : element < 2 * plane ? 1 : 2;
}

// Writes the lane's share of a tile from the staged numerators: 16 bytes at a time where the tile
// starts on such a boundary and holds a whole number of packs (then no pack spans two planes), else
// by element.
template <TileDtype dtype>
KTFAST_HD void write_lane(const int16_t* kept, const TileScaling& f, bool channels_last,
                          int32_t plane, int32_t lane, int32_t n_lanes,
                          typename Output<dtype>::Type* out) {
  using T = typename Output<dtype>::Type;
  constexpr int32_t n = Pack<T>::n;
  struct alignas(2 * n) Kept {
    int16_t v[n];
  };
  const int32_t total = 3 * plane;
  if (total % n == 0 && reinterpret_cast<uintptr_t>(out) % 16 == 0) {
    for (int32_t i = lane * n; i < total; i += n_lanes * n) {
      const Kept from = *reinterpret_cast<const Kept*>(kept + i);
      Pack<T> to;
      int32_t c = channel_of(channels_last, plane, i);
      for (int32_t j = 0; j < n; ++j) {
        to.v[j] = Output<dtype>::from(normalised(from.v[j], pick(f.mean, c), pick(f.inverse, c)));
        if (channels_last) c = c == 2 ? 0 : c + 1;
      }
      *reinterpret_cast<Pack<T>*>(out + i) = to;
    }
    return;
  }
  for (int32_t i = lane; i < total; i += n_lanes) {
    const int32_t c = channel_of(channels_last, plane, i);
    out[i] = Output<dtype>::from(normalised(kept[i], pick(f.mean, c), pick(f.inverse, c)));
  }
}

// Writes the lane's pixels by reading the image again, for tiles too large to stage.
template <TileDtype dtype>
KTFAST_HD void reread_lane(const TileSource& s, const TileScaling& f, bool channels_last,
                           int32_t lane, int32_t n_lanes, typename Output<dtype>::Type* out) {
  for (PixelWalk at(s.size, lane, n_lanes); at.inside(); at.next()) {
    const Pixel pixel = read_pixel(s, at);
    for (int c = 0; c < 3; ++c) {
      out[element_index(channels_last, s.size, at.index(), c)] =
          Output<dtype>::from(normalised(pixel.value[c], f.mean[c], f.inverse[c]));
    }
  }
}

template <class T>
KTFAST_HD void clear_lane(int32_t total, int32_t lane, int32_t n_lanes, T* out) {
  for (int32_t i = lane; i < total; i += n_lanes) out[i] = T{};
}

}  // namespace ktfast
